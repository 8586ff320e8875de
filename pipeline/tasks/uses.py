"""Reasoning, unseen: which of some things helps to do something: to cut bread, to see in the dark.

The right thing stands at each place equally often. Worked turns before the question show the form of the answer.

SmolLM2-135M-Instruct answers 51.5 % of the 200 test prompts of the profile laptop.
"""

import random
from collections.abc import Iterator
from itertools import count

from pipeline.core.config import Section
from pipeline.core.types import Example, conversation
from pipeline.tasks.kinds import HEURISTICS, offers, score

__all__ = ["HEURISTICS", "Options", "examples", "score"]

# What is to be done, and what helps; no word of the one gives the other away. Two uses of one group are never in one
# question: what helps with the one may help with the other.
USES = {
    "cutting": {
        "cut bread": "knife",
        "cut paper": "scissors",
        "cut down a tree": "axe chainsaw",
        "sew on a button": "needle thread",
    },
    "writing": {
        "write a letter": "pen pencil",
        "remove a pencil line": "eraser",
        "measure a table": "ruler",
        "color a wall": "paintbrush",
        "mail a letter": "stamp envelope",
    },
    "resting": {"sit down": "chair stool sofa", "sleep well": "bed mattress", "climb onto a roof": "ladder"},
    "light": {
        "see in the dark": "lamp torch candle lantern flashlight",
        "look at the stars": "telescope",
        "start a fire": "match lighter",
        "take a photo": "camera",
    },
    "eating": {
        "drink water": "cup glass mug",
        "boil water": "kettle",
        "eat soup": "spoon bowl",
        "fry an egg": "pan",
        "carry water": "bucket",
        "keep food cold": "refrigerator freezer",
        "bake a cake": "oven",
    },
    "cloth": {
        "dry wet hands": "towel",
        "stay dry in the rain": "umbrella",
        "keep warm in winter": "coat scarf blanket sweater",
        "wash dirty hands": "soap",
    },
    "travel": {
        "cross a river": "boat canoe raft",
        "fly to another country": "airplane",
        "find your way in a forest": "map compass",
        "ride to school": "bicycle bus",
    },
    "tools": {
        "hit a nail": "hammer",
        "fasten a bolt": "wrench",
        "dig a hole": "shovel spade",
        "sweep the floor": "broom",
    },
    "hair": {"clean teeth": "toothbrush", "untangle long hair": "comb"},
    "locks": {"open a locked door": "key", "secure a bicycle": "padlock chain"},
    "others": {
        "tell the time": "clock watch",
        "make music": "guitar piano violin flute trumpet drum",
        "call a friend": "telephone",
        "catch a fish": "net hook",
        "pay for food": "money cash",
    },
}
WORDINGS = (
    "What do you need to {use}: {either}?",
    "Which of these would you use to {use}: {listed}?",
    "I want to {use}. What helps: {either}?",
    "{listed}: which of them helps to {use}?",
    "Which thing is used to {use}? {listed}",
    "To {use}, what is best: {either}?",
    "How can I {use}: with {either}?",
    "You want to {use}. Do you need {either}?",
    "Pick what you need to {use}: {listed}.",
    "What is best to {use}: {either}?",
    "Find the thing that helps to {use}: {listed}.",
    "What would help me to {use}: {either}?",
)
TURNS = (
    ("I want to weigh flour. What helps: soap, carpet, scales or thumb?", "To weigh flour, use the scales."),
    ("Which of these would you use to make ice: pillow, freezer, ladder, sand?", "To make ice, use the freezer."),
    ("Find the thing that helps to catch a mouse: trap, roof, lemon, sock.", "To catch a mouse, use the trap."),
    ("You want to iron a shirt. Do you need grass, ball, carrot or iron?", "To iron a shirt, use the iron."),
    ("rug, pillow, basket, stapler: which of them helps to carry apples?", "To carry apples, use the basket."),
)


class Options(Section):
    """things: how many are offered."""

    things: int


def examples(seed: int, options: Options) -> Iterator[Example]:
    draw = random.Random(f"uses {seed}")
    for number in count():
        groups = draw.sample(list(USES), options.things)
        things = []
        for group in groups:
            use = draw.choice(list(USES[group]))
            things.append(draw.choice(USES[group][use].split()))
        place = number % options.things
        use = next(use for use, helps in USES[groups[place]].items() if things[place] in helps.split())
        asked = draw.choice(WORDINGS).format(use=use, **offers(things))
        yield Example(
            id=f"uses-{number}",
            messages=conversation("Answer in one sentence.", TURNS, asked),
            target=f"To {use}, use the {things[place]}.",
            meta={"answer": things[place], "choices": {thing: thing for thing in things}},
        )
