"""Judges of two answers: the longer one, chance, and any model behind an endpoint that speaks OpenAI's protocol.

A model as a judge is asked twice, with the answers in either order, because models prefer a place: it prefers an answer
only if it does so both times, else it is a draw. The local language model (``pipeline.evaluation.judges``) is asked in
the same words.
"""

import http.client
import json
import os
import random
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline.core.errors import UserError
from pipeline.scoring.preference import DRAW

# instruction, the two answers: the preference, 1 to 2; None where the judge gave no verdict
Judge = Callable[[Sequence[tuple[str, str, str]]], list[float | None]]

QUESTION = (
    "Here is an instruction and two answers to it. Say which answer is better.\n\n# Instruction\n{instruction}\n\n"
    "# Answer 1\n{first}\n\n# Answer 2\n{second}\n\nWhich answer is better? Reply with 1 or 2 and nothing else."
)
KEY = "SELFADAPT_JUDGE_KEY"  # the environment variable with the endpoint's key, where it wants one
SECONDS = 120
LONGEST_REPLY = 1 << 20  # bytes


def longer(pairs: Sequence[tuple[str, str, str]]) -> list[float | None]:
    """Prefers the longer answer: what any judge has to be better than."""
    return [
        DRAW if len(first) == len(second) else 1.0 if len(first) > len(second) else 2.0 for _, first, second in pairs
    ]


def by_chance(seed: int) -> Judge:
    """Prefers either answer with the same chance, drawn by the pair: what no judge may be worse than."""

    def judge(pairs: Sequence[tuple[str, str, str]]) -> list[float | None]:
        return [random.Random(f"judge {seed} {pair}").choice((1.0, 2.0)) for pair in pairs]

    return judge


def both_orders(first: float | None, swapped: float | None) -> float | None:
    """One preference from two: as asked (1 or 2), and with the answers exchanged."""
    if first is None or swapped is None:
        return None
    return first if first == 3 - swapped else DRAW


def endpoint(url: str, model: str, *, workers: int = 4) -> Judge:
    """The judge ``model`` behind ``url``, e.g. ``http://localhost:8000/v1``."""

    def ask(text: str) -> float | None:
        body = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 4}
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as reply:
                said = json.loads(reply.read(LONGEST_REPLY))["choices"][0]["message"]["content"]
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, RecursionError) as error:
            raise UserError(
                f"expected a verdict of {model} from {url}, got: {type(error).__name__}: {error}; check that the "
                f"endpoint runs, and {KEY} where it wants a key"
            ) from None
        verdict = next((letter for letter in str(said) if letter in "12"), None)
        return float(verdict) if verdict else None

    def judge(pairs: Sequence[tuple[str, str, str]]) -> list[float | None]:
        texts = [
            QUESTION.format(instruction=instruction, first=first, second=second)
            for instruction, answer, other in pairs
            for first, second in ((answer, other), (other, answer))
        ]
        with ThreadPoolExecutor(workers) as threads:
            verdicts = list(threads.map(ask, texts))
        return [both_orders(*verdicts[place : place + 2]) for place in range(0, len(verdicts), 2)]

    return judge
