"""A local language model as a judge: which of two answers it would name, by log-likelihood, in both orders.

It is asked in the words of ``scoring.preference.judges``; what is compared is log p("1") and log p("2") as its reply,
with the answers in either order. A model that names a place whatever stands there gives draws; so that a small one
says anything, its preference is that of the sum over both orders, which cancels its liking for a place.

It reads the beginning of each answer only, as long as its setting says: two whole answers in both orders are some two
thousand tokens to weigh one pair by, and more than a small model makes anything of.
"""

from collections.abc import Sequence

from pipeline.core.generation import weigh
from pipeline.core.models import Base, Compute
from pipeline.scoring.preference import DRAW
from pipeline.scoring.preference.judges import QUESTION, Judge


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
            base,
            [base.prompt_ids([{"role": "user", "content": question}]) for question in questions],
            [replies] * len(questions),
            batch_tokens=compute.batch_tokens,
            cache_tokens=compute.cache_tokens,
        )
        return [preferred(found[place], found[place + 1]) for place in range(0, len(found), 2)]

    return judge


def preferred(asked: Sequence[float], swapped: Sequence[float]) -> float:
    """The preference of log-likelihoods of ("1", "2"), as asked and with the answers exchanged."""
    first = (asked[0] - asked[1]) - (swapped[0] - swapped[1])
    return DRAW if first == 0 else 1.0 if first > 0 else 2.0
