"""The judges of ``params.yaml``, and a local language model as one of them.

A local model says which of two answers it would name, by log-likelihood, in both orders. It is asked in the words of
``scoring.preference.judges``; what is compared is log p("1") and log p("2") as its reply, with the answers in either
order. A model that names a place whatever stands there gives draws; so that a small one says anything, its preference
is that of the sum over both orders, which cancels its liking for a place.

It reads the beginning of each answer only, as long as its setting says: two whole answers in both orders are some two
thousand tokens to weigh one pair by, and more than a small model makes anything of.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.progress import bar
from pipeline.model.decoding.weigh import weigh
from pipeline.model.forward.base import Adapted, Base, Compute, load_base
from pipeline.scoring.preference import DRAW
from pipeline.scoring.preference.judges import QUESTION, Judge, by_chance, endpoint, longer

PIECE = 50  # pairs judged between two checkpoints


class Judging(Section, at="judges.{judge}"):
    """A judge: the longer answer, chance, the base model (``local``), or one behind an OpenAI-compatible endpoint.

    task: the benchmark on whose annotations its agreement with GPT-4 is measured. pairs: how many of them, drawn by
    ``seed``. characters: how much of each answer a local model reads. url, model: of an endpoint.
    """

    kind: Literal["longer", "chance", "local", "endpoint"]
    task: str
    pairs: int
    seed: int
    characters: int = 0
    url: str = ""
    model: str = ""


def judge_of(name: str, settings: Judging, *, model: Path, compute: Compute) -> Judge:
    """The judge of a name. model: the base model's folder."""
    if settings.kind == "local":
        if settings.characters < 1:
            raise UserError(
                f"params.yaml: expected 'judges.{name}' of a local model to have 'characters', how much of each answer "
                "it reads; add it"
            )
        return local(load_base(model, compute), compute, settings.characters)
    if settings.kind == "endpoint":
        if not (settings.url and settings.model):
            raise UserError(f"params.yaml: expected 'judges.{name}' of an endpoint to have 'url' and 'model'; add them")
        return endpoint(settings.url, settings.model)
    return longer if settings.kind == "longer" else by_chance(settings.seed)


def in_pieces(
    judge: Judge, pairs: Sequence[tuple[str, str, str]], name: str, checkpoints: Checkpoints
) -> list[float | None]:
    """What a judge says of many pairs; a run that was killed goes on behind the last piece it had."""
    state = checkpoints.load(name)
    said: list[float | None] = state[1]["said"] if state else []
    with bar("pairs", len(pairs)) as drawn:
        drawn.advance(len(said))
        while len(said) < len(pairs):
            piece = pairs[len(said) : len(said) + PIECE]
            said = [*said, *judge(piece)]
            checkpoints.save(name, {}, {"said": said})
            drawn.advance(len(piece))
    return said


def local(base: Base, compute: Compute, characters: int) -> Judge:
    """The judge that a base model is. characters: how much of each answer it reads."""
    replies = [base.answer_ids(name)[:1] for name in ("1", "2")]

    def judge(pairs: Sequence[tuple[str, str, str]]) -> list[float | None]:
        questions = [
            QUESTION.format(instruction=instruction, first=first[:characters], second=second[:characters])
            for instruction, one, other in pairs
            for first, second in ((one, other), (other, one))
        ]
        found = weigh(
            Adapted(base, compute),
            [base.prompt_ids([{"role": "user", "content": question}]) for question in questions],
            [replies] * len(questions),
        )
        return [preferred(found[place], found[place + 1]) for place in range(0, len(found), 2)]

    return judge


def preferred(asked: Sequence[float], swapped: Sequence[float]) -> float:
    """The preference of log-likelihoods of ("1", "2"), as asked and with the answers exchanged."""
    first = (asked[0] - asked[1]) - (swapped[0] - swapped[1])
    return DRAW if first == 0 else 1.0 if first > 0 else 2.0
