"""Questions about signs: what a sign says (its word, its price, the second of its numbers), and what follows from it.

Who asks says which words and which strings may stand on the signs: the tasks take those that no tower has seen, whoever
trains a model takes the others.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.pictures import signs

SHORT = 6  # letters of a word that stands beside a number


@dataclass(frozen=True)
class Source:
    """words: that may stand on a sign. kept: whether a string without words may."""

    words: Sequence[str]
    kept: Callable[[str], bool]

    def string(self, form: Callable[[random.Random], str], draw: random.Random) -> str:
        while not self.kept(text := form(draw)):
            pass
        return text

    def unlike(self, draw: random.Random) -> list[str]:
        """Two numbers that are not the same."""
        while len(set(both := self.string(signs.pair, draw).split())) < 2:
            pass
        return both


# A sign as (what stands on it, what is asked, the answer); letters of answers are small.
Asked = tuple[str, str, str]


def word(draw: random.Random, source: Source) -> Asked:
    text = draw.choice(source.words)
    return signs.cased(text, draw), "What does the sign say?", text


def word_beside_a_number(draw: random.Random, source: Source) -> Asked:
    text = draw.choice([word for word in source.words if len(word) <= SHORT])
    return f"{signs.cased(text, draw)} {signs.number(draw, 3)}", "What word is on the sign?", text


def number(draw: random.Random, source: Source) -> Asked:
    text = source.string(signs.number, draw)
    return text, "What number is on the sign?", text


def price(draw: random.Random, source: Source) -> Asked:
    text = source.string(lambda draw: f"${signs.price(draw)}", draw)
    return text, "What is the price?", text.removeprefix("$")


def plate(draw: random.Random, source: Source) -> Asked:
    text = source.string(signs.plate, draw)
    return text, "What is the licence plate?", text.lower()


def first_number(draw: random.Random, source: Source) -> Asked:
    text = source.string(signs.pair, draw)
    return text, "What is the first number?", text.split()[0]


def second_number(draw: random.Random, source: Source) -> Asked:
    text = source.string(signs.pair, draw)
    return text, "What is the second number?", text.split()[1]


KINDS: Mapping[str, Callable[[random.Random, Source], Asked]] = {
    "word": word,
    "word beside a number": word_beside_a_number,
    "number": number,
    "price": price,
    "plate": plate,
    "first number": first_number,
    "second number": second_number,
}
# What follows from a sign, for training alone. None is a question of the task of such questions, nor are its words.
OPPOSITES = tuple(
    tuple(pair.split())
    for pair in (
        "big small, hot cold, high low, young old, long short, left right, black white, open closed, up down, wet dry, "
        "day night, good bad, fast slow, early late, rich poor, hard soft, full empty, inside outside, first last, "
        "true false, yes no, near far, light dark, top bottom, north south, east west, more less, before after, "
        "begin end, buy sell, give take, love hate, war peace, friend enemy, king servant, boy girl, man woman, "
        "brother sister, husband wife, push pull, win lose, strong weak, thick thin, wide narrow, clean dirty"
    ).split(", ")
)
THINGS = {
    "animal": "cat dog pig cow bear elephant mouse whale shark snake horses rat",
    "color": "red blue green yellow brown black white gray pink",
    "food": "egg meat pizza chocolate corn potatoes chips pie bean sandwich",
    "body part": "hand foot head nose eye ear arm leg knee shoulder heart brain",
    "vehicle": "car truck plane train ship bike van taxi",
    "job": "teacher lawyer nurse artist writer driver pilot manager scientist",
    "number": "two three four five six seven eight ten hundred",
    "instrument": "flute trumpet cello harp organ",
    "sport": "tennis football hockey golf baseball rugby boxing",
    "metal": "gold iron copper steel zinc lead tin",
}


def smaller(draw: random.Random, source: Source) -> Asked:
    both = source.unlike(draw)
    return " ".join(both), "Which of the two numbers is smaller?", min(both, key=int)


def number_after(draw: random.Random, source: Source) -> Asked:
    text = source.string(signs.number, draw)
    return text, "Which number comes after the number on the sign?", str(int(text) + 1)


def more(draw: random.Random, source: Source) -> Asked:
    text, other = source.string(lambda draw: str(draw.randint(1, 60)), draw), draw.randint(1, 40)
    return text, f"How much is the number on the sign plus {other}?", str(int(text) + other)


def first_letter(draw: random.Random, source: Source) -> Asked:
    text = draw.choice(source.words)
    return signs.cased(text, draw), "What is the first letter of the word?", text[0]


def opposite(draw: random.Random, source: Source) -> Asked:
    one, other = draw.sample(draw.choice(OPPOSITES), 2)
    return signs.cased(one, draw), "What is the opposite of the word on the sign?", other


def thing(draw: random.Random, source: Source) -> Asked:
    kind = draw.choice(list(THINGS))
    return signs.cased(draw.choice(THINGS[kind].split()), draw), "What kind of thing does the sign name?", kind


BEYOND: Mapping[str, Callable[[random.Random, Source], Asked]] = {
    "smaller": smaller,
    "number after": number_after,
    "more": more,
    "first letter": first_letter,
    "opposite": opposite,
    "thing": thing,
}
OF_THE_TASKS = Source(signs.WORDS, signs.held_out)
SYSTEM = "Answer the question about the sign."


def of_others(words: Sequence[str]) -> Source:
    """Signs that no task has. words: to draw from; the tasks' are left out."""
    return Source([word for word in words if word.lower() not in signs.KNOWN], lambda text: not signs.held_out(text))
