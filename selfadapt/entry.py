"""``train``, ``evaluate`` and ``load_expert``: what the commands do, for a program."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pipeline.core.artifacts import read_examples
from pipeline.core.config import lookup, settings
from pipeline.core.errors import UserError
from pipeline.serving.project import Project

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from pipeline.serving.assistant import Assistant

STRATEGIES = {"svf": "expert", "lora": "lora"}  # how what a row trains on one task is called


@dataclass(frozen=True)
class Evaluated:
    """What a strategy answered of a task's prompts.

    accuracy: the share of right answers, low and high its 95 % bootstrap interval. n: prompts. answers: their texts.
    correct: of each.
    """

    task: str
    strategy: str
    accuracy: float
    low: float
    high: float
    n: int
    answers: tuple[str, ...]
    correct: tuple[bool, ...]


@dataclass(frozen=True)
class Trained:
    """What ``train`` came to: the task, and what each method scored beside the base model.

    strategies: what to call them by in ``Assistant.generate``, ``evaluate`` and ``load_expert``; of rows that are only
        compared, none.
    scores: row of ``params.yaml`` → accuracy on the task's test rows, ``base`` among them; of the first seed.
    """

    task: str
    strategies: tuple[str, ...]
    scores: dict[str, float]


def train(
    file: str | Path, *, method: str | Sequence[str] = "svf", project: str | Path = ".", jobs: int = 2, **said: Any
) -> Trained:
    """Train on rows of your own and score against the base model, as ``selfadapt train`` does.

    file: a JSON object a line. method: rows of ``params.yaml`` that are trained on one task. project: its folder, whose
    ``params.yaml`` gets the task and a table. jobs: stages side by side. said: what the command's options say of the
    rows: ``name``, ``prompt``, ``answer``, ``scorer``, ``options``, ``pattern``, ``system``, ``worked``, ``seed``.

    Raises UserError where the rows cannot be used, and where a stage fails, whose reason is printed.
    """
    from pipeline.flow import own
    from selfadapt import running

    path, methods = Path(file).resolve(), [method] if isinstance(method, str) else [*method]
    if unknown := set(said) - {"name", "prompt", "answer", "scorer", "options", "pattern", "system", "worked", "seed"}:
        raise UserError(f"expected what 'selfadapt train' takes, got '{min(unknown)}'; leave it out")
    with contextlib.chdir(project):
        path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        task = own.named(path, said.get("name"))
        try:
            running.train(path, method=methods, jobs=jobs, **said)
        except typer.Exit:
            raise UserError(
                f"expected every stage of '{task}' to succeed, but one failed; its line above names its log"
            ) from None
    opened = Project(Path(project))
    cells = {key: cell for key, cell in opened.plan["cells"].items() if task in cell["tables"]}
    return Trained(
        task,
        tuple(f"{STRATEGIES[name]}:{task}" for name in methods if name in STRATEGIES),
        {cell["row"]: _mean(opened, key) for key, cell in cells.items() if cell["seed"] in (None, opened.seed)},
    )


def _mean(project: Project, cell: str) -> float:
    import pandas as pd

    scores = pd.read_parquet(project.artifact(f"scores/{cell}", ".parquet"), columns=["correct"])
    return float(scores["correct"].mean())


def evaluate(
    strategy: str,
    task: str,
    *,
    project: "str | Path | Assistant" = ".",
    split: str = "test",
    limit: int | None = None,
) -> Evaluated:
    """Ask a strategy a task's prompts, greedily, and score its answers as the report does.

    strategy: as ``Assistant.generate`` takes it, an exported folder (``expert:FOLDER``), too. task: one of
    ``params.yaml`` that a run has prepared. project: its folder, or an ``Assistant`` that is open already. split:
    ``train``, ``validation``, ``test`` or ``few_shot``. limit: the first so many prompts alone.

    Answers are computed in float32 on a CPU, the report's by ``compute.dtype``: the two may differ in a few answers.
    """
    import numpy as np

    from pipeline.data.tasks import task_module
    from pipeline.evaluation.intervals import Resampling, estimate
    from pipeline.serving.assistant import Assistant

    asked_of = project if isinstance(project, Assistant) else Assistant.open(project)
    opened = asked_of.project
    known = lookup(opened.params, "tasks")
    if task not in known:
        raise UserError(f"expected a task out of {', '.join(known)}, got '{task}'; correct its name")
    decoding = settings(opened.params, f"tasks.{task}.decoding")
    if "max_new_tokens" not in decoding:
        raise UserError(
            f"expected a task whose answers are written, got '{task}', which is answered by weighing choices; read its "
            "score in the report"
        )
    path = opened.folder / "data/tasks" / task / f"{split}.jsonl"
    if not path.is_file():
        raise UserError(
            f"expected the prompts in {path}, which are not there; run 'selfadapt run prepare@{task}' first"
        )
    examples = read_examples(path)[:limit]
    questions = [(example.messages, strategy) for example in examples]
    answers = [
        answer.text for answer in asked_of.answer(questions, max_new_tokens=decoding["max_new_tokens"], plain=True)
    ]
    correct = [bool(score.correct) for score in task_module(task).score(examples, answers)]
    drawn = {name: lookup(opened.params, f"report.{name}") for name in Resampling.model_fields}
    found = estimate([np.array(correct, dtype=float)], Resampling.parse(drawn, "report"))
    return Evaluated(task, strategy, found.mean, found.low, found.high, found.n, tuple(answers), tuple(correct))


def load_expert(
    name: str,
    model: "PreTrainedModel | None" = None,
    *,
    project: str | Path = ".",
    trainable: bool = False,
) -> "PeftModel":
    """An expert as a model of peft's: for ``generate`` of transformers, for a trainer, to be merged or switched off.

    name: of an expert, an adapter or a mixture, as ``selfadapt experts list`` gives it, or ``expert:FOLDER`` of what
    was exported or what peft has saved. model: to put it into (default: the project's base model, float32). trainable:
    gradients reach it.

    It reads a prompt as it stands: the form that an expert was trained in is ``Assistant``'s business.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from pipeline.serving.exported import read_exported
    from pipeline.serving.peft.folder import tuned

    opened = Project(Path(project))
    folder = Path(name.removeprefix("expert:"))
    read = read_exported(folder, opened.model) if folder.is_dir() else opened.read(opened.file_of(name))
    if model is None:
        if not opened.model.is_dir():
            raise UserError(f"expected the base model in {opened.model}, which is not there; run 'dvc repro' first")
        model = AutoModelForCausalLM.from_pretrained(opened.model, dtype=torch.float32)
    return tuned(model, read[0], factors=opened.factors, trainable=trainable)
