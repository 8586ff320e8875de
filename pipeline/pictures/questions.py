"""Questions that a sign answers by itself: what it says, its number, its price, the second of its numbers.

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
OF_THE_TASKS = Source(signs.WORDS, signs.held_out)
SYSTEM = "Read the sign."


def of_others(words: Sequence[str]) -> Source:
    """Signs that no task has. words: to draw from; the tasks' are left out."""
    return Source([word for word in words if word.lower() not in signs.KNOWN], lambda text: not signs.held_out(text))
