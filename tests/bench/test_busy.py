"""Two processes keep the two cores busy: what that costs the decode loop, and what a bounded wait of its threads does.

Threads of OpenMP spin where they wait for each other, and each waits for all at every product. ``pipeline.core`` bounds
that (``GOMP_SPINCOUNT``), which a process reads once: so each bound has a process of its own, and they answer in turns.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.core import SPINS
from tests.bench.conftest import EXAMPLES, MODEL

ROUNDS, PROMPTS, TOKENS = 5, 32, 32
UNBOUNDED = 300_000  # libgomp's own where nothing is set
ANSWER = f"""
import sys, time
from pathlib import Path
from pipeline.core.artifacts import read_examples
from pipeline.model.decoding.answer import generate
from pipeline.model.forward.base import Adapted, Base, load_base, prepare_process
from tests.bench.conftest import COMPUTE

prepare_process(COMPUTE)
loaded = load_base(Path("{MODEL}"), COMPUTE)
base = Base(loaded.model, loaded.tokenizer, frozenset([-1]))
examples = read_examples(Path("{EXAMPLES}") / "functions" / "validation.jsonl")[:{PROMPTS}]
asked = [base.prompt_ids(example.messages) for example in examples]
for line in sys.stdin:
    start = time.perf_counter()
    generate(Adapted(base, COMPUTE), asked, max_new_tokens={TOKENS})
    print(time.perf_counter() - start, flush=True)
"""


class Answering:
    """A process that answers the prompts whenever it is asked to, with a bound of its own."""

    def __init__(self, spins: int) -> None:
        environment = {**os.environ, "GOMP_SPINCOUNT": str(spins), "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", ANSWER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def seconds(self) -> float:
        assert self.process.stdin and self.process.stdout
        print(file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


@pytest.fixture(scope="module")
def answering() -> Iterator[tuple[Answering, Answering]]:
    """With our bound, and with libgomp's own."""
    both = Answering(SPINS), Answering(UNBOUNDED)
    for one in both:
        one.seconds()  # the first call pays for what later ones find ready
    yield both
    for one in both:
        one.process.kill()
        one.process.wait()


@contextmanager
def busy() -> Iterator[None]:
    """Two processes that compute without end."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for one in others:
            one.kill()
            one.wait()


def test_a_busy_machine(note, answering):
    ours, theirs = answering
    quiet, crowded, theirs_crowded, against = [], [], [], []
    for round_ in range(ROUNDS):
        pair = {one: one.seconds() for one in ((ours, theirs) if round_ % 2 else (theirs, ours))}
        quiet.append(pair[ours])
        against.append(pair[ours] / pair[theirs])
        with busy():
            crowded.append(ours.seconds() / pair[ours])
            if round_ < 2:  # it takes minutes
                theirs_crowded.append(theirs.seconds() / pair[theirs])
    n = f"{PROMPTS} prompts × {TOKENS} tokens, two computing processes beside"
    note("busy", crowded, "seconds, ours on a busy machine over ours on a quiet one", n)
    note("busy_unbounded", theirs_crowded, "seconds, with threads that spin as libgomp has them: busy over quiet", n)
    note("bounded_spin", against, "seconds on a quiet machine, threads that spin a bounded time over libgomp's own", n)
