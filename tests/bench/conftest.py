"""Paired benchmarks: ours and the alternative in turns in one process, on the real base model.

    make bench        # writes reports/bench.json and reports/bench.md

A machine's speed drifts by more than most differences measured here, so what is reported is the ratio within a pair,
its median, minimum and maximum over the rounds. Needs artifacts/base/model and artifacts/svd/base.safetensors.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.core.artifacts import atomic, read_examples, write_json
from pipeline.model.forward.adapters import Factors
from pipeline.model.forward.base import Compute, load_base, prepare_process

ROUNDS = 5
MODEL, FACTORS, EXAMPLES = Path("artifacts/base/model"), Path("artifacts/svd/base.safetensors"), Path("data/tasks")
COMPUTE = Compute(device="cpu", dtype="bfloat16", threads=2, batch_tokens=2048, cache_tokens=32768)
found: dict[str, dict] = {}


@pytest.fixture(scope="session")
def base():
    for path in (MODEL, FACTORS):
        if not path.exists():
            pytest.exit(f"expected {path}; run 'dvc repro factorize' first", returncode=2)
    prepare_process(COMPUTE)
    return load_base(MODEL, COMPUTE)


@pytest.fixture(scope="session")
def plain():
    """The base model as transformers runs it."""
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.bfloat16).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def factors():
    return Factors(FACTORS)


@pytest.fixture(scope="session")
def prompts(base):
    """(count) → prompts of one task, functions, as a step of training has them: of ragged lengths."""
    examples = read_examples(EXAMPLES / "functions" / "validation.jsonl")
    return lambda count: [base.prompt_ids(example.messages) for example in examples[:count]]


@pytest.fixture
def note():
    """(name, figures, unit, n, **more) → one entry of the report; ``figures`` holds one number a round."""

    def put(name: str, figures: list[float], unit: str, n: str, **more: object) -> None:
        found[name] = {
            "median": statistics.median(figures),
            "min": min(figures),
            "max": max(figures),
            "rounds": len(figures),
            "unit": unit,
            "n": n,
            **more,
        }

    return put


@pytest.fixture
def paired(benchmark, note):
    """(name, ours, alternative, unit, n) → run both in turns and note alternative's figure over ours.

    A figure is what a call returns, or its wall seconds where it returns None. inverted: ours over the alternative's.
    """

    def measure(
        name: str,
        ours: Callable[[], float | None],
        alternative: Callable[[], float | None],
        *,
        unit: str,
        n: str,
        inverted: bool = False,
        **more: object,
    ) -> None:
        ratios: list[float] = []

        def timed(call: Callable[[], float | None]) -> float:
            start = time.perf_counter()
            figure = call()
            return time.perf_counter() - start if figure is None else figure

        def turn() -> None:
            order = (ours, alternative) if len(ratios) % 2 == 0 else (alternative, ours)
            figures = {call: timed(call) for call in order}
            ratio = figures[alternative] / figures[ours]
            ratios.append(1 / ratio if inverted else ratio)

        timed(ours), timed(alternative)  # the first call pays for what later ones find ready
        benchmark.pedantic(turn, rounds=ROUNDS, iterations=1)
        note(name, ratios, unit, n, **more)

    return measure


def pytest_sessionfinish(session, exitstatus):
    if not found:
        return
    reports = Path("reports")
    processor = f"{_processor()}, {os.cpu_count()} cores"
    machine = f"{processor}, {COMPUTE.threads} threads, {COMPUTE.dtype}, torch {torch.__version__}"
    before = json.loads((reports / "bench.json").read_text()) if (reports / "bench.json").is_file() else {}
    # Each with its machine: not all need be of this one, and a ratio hangs on how fast the products are.
    entries = {**before, **{name: {**entry, "machine": machine} for name, entry in found.items()}}
    write_json(reports / "bench.json", entries)
    lines = [
        "# How fast it is",
        "",
        "SmolLM2-135M-Instruct. `make bench` measures it: ours and the alternative in turns.",
        "",
        "| benchmark | median | min … max | rounds | what | on | machine |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {entry['median']:.2f} | {entry['min']:.2f} … {entry['max']:.2f} | {entry['rounds']} "
            f"| {entry['unit']} | {entry['n']} | {entry['machine']} |"
            for name, entry in sorted(entries.items())
        ),
    ]
    for name, entry in sorted(entries.items()):
        if "curve" in entry:
            columns = list(entry["curve"][0])
            lines += ["", f"`{name}` in steps:", "", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
            lines += [f"| {' | '.join(_cell(row[key]) for key in columns)} |" for row in entry["curve"]]
    with atomic(reports / "bench.md") as path:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
