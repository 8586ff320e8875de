"""Reading, trained: what stands on a sign. The sign is a picture that is drawn here (``pipeline.pictures.signs``).

Words are those of a list and strings those of a hash that no tower is trained on, so what is asked for has not been
seen by whoever reads it. No string stands on two signs of the task. Letters' case is not asked for.
"""

import random
from collections.abc import Collection, Iterator, Sequence
from itertools import count

from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.types import Example, Score, conversation
from pipeline.pictures import signs
from pipeline.pictures.files import png, url
from pipeline.pictures.questions import KINDS, OF_THE_TASKS, SYSTEM, Asked


class Options(Section):
    """kinds: of questions, out of those of ``pipeline.pictures.questions``; each is asked as often."""

    kinds: tuple[str, ...]


def examples(seed: int, options: Options) -> Iterator[Example]:
    kinds = known(options.kinds, KINDS, "signs")
    draw = random.Random(f"signs {seed}")
    drawn: set[str] = set()
    for place in count():
        kind = kinds[place % len(kinds)]
        made = KINDS[kind](draw, OF_THE_TASKS)
        if made[0].lower() not in drawn:
            drawn.add(made[0].lower())
            yield asked(f"signs-{len(drawn) - 1}", kind, made, draw)


def known(kinds: Sequence[str], there: Collection[str], task: str) -> Sequence[str]:
    """The kinds of questions that are asked for. UserError for one that is not there."""
    if missing := [kind for kind in kinds if kind not in there] or not kinds:
        raise UserError(
            f"params.yaml: expected tasks.{task}.data.options.kinds out of {', '.join(there)}, got "
            f"{missing or 'none'}; correct them"
        )
    return kinds


def asked(id: str, kind: str, made: Asked, draw: random.Random) -> Example:
    """An example about a sign that is drawn now."""
    text, question, answer = made
    system, user = conversation(SYSTEM, (), question)
    picture = url(png(signs.draw_sign(text, draw)))
    return Example(id, (system, {**user, "images": [picture]}), answer, {"answer": answer, "kind": kind, "sign": text})


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    """Right is the answer itself; letters' case, spaces at its ends and a final full stop do not count."""
    return [
        _judged(example.id, answer, example.meta["answer"]) for example, answer in zip(examples, answers, strict=True)
    ]


def _judged(id: str, answer: str, expected: str) -> Score:
    said = " ".join(answer.casefold().split()).removesuffix(".")
    correct = said == expected.casefold()
    return Score(id, float(correct), correct, said or None, marked=bool(said))
