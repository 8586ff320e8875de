"""Reasoning, trained: which of some words is of a kind: an animal, a tool, a country.

Each kind is represented by one word, so what is right depends on what words mean and on nothing that can be seen. The
right word stands at each place equally often. Worked turns before the question show the form of the answer.

SmolLM2-135M-Instruct answers 48.0 % of the 200 test prompts of the profile laptop.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count

from pipeline.core.config import Section
from pipeline.core.types import Example, Score, conversation
from pipeline.scoring import choices

KINDS = {
    kind: words.split()
    for kind, words in {
        "animal": "dog cat horse cow sheep lion tiger rabbit goat wolf bear monkey elephant camel donkey zebra",
        "bird": "eagle sparrow pigeon parrot owl penguin swan stork falcon",
        "city": "London Berlin Tokyo Madrid Chicago Moscow Cairo Vienna",
        "color": "red blue green yellow purple brown pink black white gray",
        "country": "France Japan Brazil Egypt Canada Norway Kenya Peru Italy Mexico",
        "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "drink": "coffee tea milk juice water wine beer lemonade",
        "flower": "tulip daisy lily sunflower orchid daffodil",
        "fruit": "apple banana pear plum cherry grape lemon melon mango strawberry peach pineapple",
        "insect": "ant bee wasp beetle mosquito butterfly moth",
        "instrument": "guitar piano violin flute drum trumpet cello clarinet harp saxophone",
        "job": "teacher doctor nurse farmer lawyer baker plumber carpenter dentist engineer",
        "language": "English French Spanish German Chinese Arabic Russian",
        "metal": "copper iron aluminum zinc tin steel brass",
        "month": "January March April June July August October December",
        "shape": "circle triangle square rectangle oval hexagon",
        "sport": "football tennis hockey basketball golf rugby volleyball baseball",
        "tool": "hammer screwdriver wrench saw shovel rake axe pliers",
        "vegetable": "carrot potato onion cabbage spinach broccoli cucumber lettuce celery garlic",
        "vehicle": "car bus truck bicycle train motorcycle tractor taxi ambulance",
    }.items()
}
# Kinds of which not two stand in one question: a word of the one may be taken for a word of the other.
ALIKE = ({"animal", "bird", "insect"}, {"city", "country", "language"}, {"fruit", "vegetable"})
WORDINGS = (
    "Which of these is {one}: {listed}?",
    "Which one is {one}? {listed}",
    "{listed}: which of them is {one}?",
    "Which word names {one}: {either}?",
    "Pick the {kind} from this list: {listed}.",
    "Find the {kind}: {listed}",
    "What is the {kind} here? {listed}",
    "One of these is {one}: {listed}. Which one?",
    "Which is {one}, {either}?",
    "Name the {kind}: {listed}",
    "Which is the {kind}: {either}?",
    "Tell me the {kind}: {listed}.",
)
TURNS = (
    ("Which is a relative, uncle, thumb, brick or lawn?", "The relative is uncle."),
    ("gravy, stone, wheel, herring: which of them is a fish?", "The fish is herring."),
    ("Tell me the season: fence, winter, cloud, corn.", "The season is winter."),
    ("Find the planet: pillow, ladder, Saturn, sand", "The planet is Saturn."),
    ("Which of these is a tree: river, pepper, oak, button?", "The tree is oak."),
    ("Which one is a letter? spoon, alpha, garage, juice", "The letter is alpha."),
)


class Options(Section):
    """words: how many are offered, one of each kind."""

    words: int


def examples(seed: int, options: Options) -> Iterator[Example]:
    draw = random.Random(f"kinds {seed}")
    for number in count():
        kinds = draw.sample(list(KINDS), options.words)
        while any(len(alike & set(kinds)) > 1 for alike in ALIKE):
            kinds = draw.sample(list(KINDS), options.words)
        words = [draw.choice(KINDS[kind]) for kind in kinds]
        place = number % options.words  # of the right word
        kind = kinds[place]
        one = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
        asked = draw.choice(WORDINGS).format(one=one, kind=kind, **offers(words))
        yield Example(
            id=f"kinds-{number}",
            messages=conversation("Answer in one sentence.", TURNS, asked),
            target=f"The {kind} is {words[place]}.",
            meta={"answer": words[place], "choices": {word: word for word in words}},
        )


def offers(words: Sequence[str]) -> dict[str, str]:
    """The words of a question as a list (``listed``) and as alternatives (``either``)."""
    return {"listed": ", ".join(words), "either": f"{', '.join(words[:-1])} or {words[-1]}"}


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [
        choices.score(example.id, answer, example.meta["answer"], example.meta["choices"])
        for example, answer in zip(examples, answers, strict=True)
    ]


HEURISTICS: Mapping[str, Callable[[Example], str]] = {
    "the shortest word": lambda example: min(example.meta["choices"], key=len),
    "the longest word": lambda example: max(example.meta["choices"], key=len),
    "the word that is first in the alphabet": lambda example: min(example.meta["choices"], key=str.casefold),
    "the first word with a capital, else the first": lambda example: max(
        example.meta["choices"], key=lambda w: w[0].isupper()
    ),
}
