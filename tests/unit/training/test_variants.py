"""A sweep keeps the best pair, a learner begins the same at every call, and a method is looked up by its name."""

import sys
from pathlib import Path

import pytest

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.model.forward.adapters import method_module
from pipeline.training.loop import Optimisation, Training
from pipeline.training.recipes import Sweep
from pipeline.training.variants import beginning, provenance, swept
from tests.tiny import OPTIMISATION, same_tensors, tiny_factors, tiny_model

SWEEP = Sweep(learning_rates=(0.1, 0.2), clips=(1.0, 2.0))
VALUES = {(0.1, 1.0): 0.4, (0.1, 2.0): 0.7, (0.2, 1.0): 0.7, (0.2, 2.0): 0.1}
ADAPTER = {"rank": 2, "alpha": 4, "dropout": 0.0, "modules": ["q_proj"]}


def outcome(better, sweep: Sweep | None = SWEEP):
    folders = []

    def train(training: Training):
        folders.append(training.checkpoints.folder)
        pair = training.settings.learning_rate, training.settings.clip
        value = VALUES.get(pair, 0.0)
        rows = [{"step": 0, "validation": 0.2, "chosen": False}, {"step": 1, "validation": value, "chosen": True}]
        return pair, rows

    settings = Optimisation.parse({**OPTIMISATION, "learning_rate": 0.5, "clip": 3.0}, "training")
    trained, rows = swept(sweep, Training(settings, 0, Checkpoints(Path("kept"))), train, better=better)
    return trained, rows, folders


@pytest.mark.parametrize(("better", "pair"), [(max, (0.1, 2.0)), (min, (0.2, 2.0))])
def test_the_pair_that_does_best_on_validation_is_kept(better, pair: tuple[float, float]) -> None:
    trained, rows, folders = outcome(better)
    assert trained == pair
    assert [(row["learning_rate"], row["clip"], row["step"]) for row in rows if row["chosen"]] == [(*pair, 1)]
    assert len(rows) == 8 and len(set(folders)) == 4  # each pair goes on from checkpoints of its own


def test_without_a_sweep_the_trainings_own_values_are_used_and_the_curve_is_as_ever() -> None:
    trained, rows, folders = outcome(min, sweep=None)
    assert trained == (0.5, 3.0) and folders == [Path("kept")]
    assert set(rows[0]) == {"step", "validation", "chosen"}


def test_a_learner_begins_the_same_at_every_call(tmp_path: Path) -> None:
    model = tiny_model()
    begin = beginning(model, "lora", ADAPTER, factors=tiny_factors(model, tmp_path), seed=3)
    learner, again = begin(), begin()
    assert learner is not again and same_tensors(learner.state(), again.state())
    about = provenance(learner, method="lora", seed=3, model=Path("artifacts/tuned/model"), task="sums")
    count = sum(tensor.numel() for tensor in learner.state().values())
    assert about == {"method": "lora", "seed": 3, "base": "tuned", "task": "sums", "parameters": count}


def test_a_method_that_cannot_be_trained_on_one_task_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    with pytest.raises(UserError, match="got 'base', whose module has no 'learner'"):
        beginning(model, "base", {}, factors=tiny_factors(model, tmp_path), seed=0)


@pytest.mark.parametrize("name", ["drao", "dora.Settings", "dora.py", ""])
def test_a_name_that_is_no_methods_is_answered_by_those_that_are(name: str) -> None:
    expected = f"params.yaml: expected a method out of base, csreft, dora, .*, got '{name}'; correct the name or add"
    with pytest.raises(UserError, match=expected):
        method_module(name)


def test_what_a_method_cannot_import_is_not_taken_for_the_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pipeline.methods.dora")
    monkeypatch.setitem(sys.modules, "pipeline.methods.common.peft", None)  # as if it were not there
    with pytest.raises(ModuleNotFoundError, match="pipeline.methods.common.peft"):
        method_module("dora")
