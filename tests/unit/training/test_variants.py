"""A sweep keeps the best pair; a variant's settings are checked by its method."""

import inspect
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.model.forward.adapters import method_module
from pipeline.model.forward.base import Compute
from pipeline.training.variants import Sweep, Variant, method_named, swept
from stages import train_baseline, train_head, train_next_token, train_policy, train_skills, tune

SWEEP = Sweep(learning_rates=(0.1, 0.2), clips=(1.0, 2.0))
VALUES = {(0.1, 1.0): 0.4, (0.1, 2.0): 0.7, (0.2, 1.0): 0.7, (0.2, 2.0): 0.1}


def outcome(best, sweep: Sweep | None = SWEEP):
    folders = []

    def train(rate: float, clip: float, checkpoints: Checkpoints):
        folders.append(checkpoints.folder)
        value = VALUES.get((rate, clip), 0.0)
        rows = [{"step": 0, "validation": 0.2, "chosen": False}, {"step": 1, "validation": value, "chosen": True}]
        return (rate, clip), rows

    trained, rows = swept(sweep, 0.5, 3.0, train, checkpoints=Checkpoints(Path("kept")), best=best)
    return trained, rows, folders


@pytest.mark.parametrize(("best", "pair"), [(max, (0.1, 2.0)), (min, (0.2, 2.0))])
def test_the_pair_that_does_best_on_validation_is_kept(best, pair: tuple[float, float]) -> None:
    trained, rows, folders = outcome(best)
    assert trained == pair
    assert [(row["learning_rate"], row["clip"], row["step"]) for row in rows if row["chosen"]] == [(*pair, 1)]
    assert len(rows) == 8 and len(set(folders)) == 4  # each pair goes on from checkpoints of its own


def test_without_a_sweep_the_trainings_own_values_are_used_and_the_curve_is_as_ever() -> None:
    trained, rows, folders = outcome(min, sweep=None)
    assert trained == (0.5, 3.0) and folders == [Path("kept")]
    assert set(rows[0]) == {"step", "validation", "chosen"}


def test_a_variants_adapter_is_checked_by_its_method() -> None:
    entry = {"method": "dora", "task": "sums", "seed": 0}
    adapter = {"rank": 4, "alpha": 8, "dropout": 0.0, "modules": ["q_proj"]}
    assert Variant.parse({**entry, "adapter": adapter}, "x").method == "dora"
    with pytest.raises(UserError, match="'x.adapter.rnak' is not a known setting; did you mean 'rank'"):
        Variant.parse({**entry, "adapter": {**adapter, "rnak": 4}}, "x")
    with pytest.raises(UserError, match="correct the name or add pipeline/methods/drao.py"):
        Variant.parse({**entry, "method": "drao", "adapter": adapter}, "x")
    with pytest.raises(UserError, match="got 'base', whose module has no 'learner'"):
        method_named("base")


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


@pytest.mark.parametrize("stage", [tune, train_skills, train_head])
def test_a_stage_says_so_when_it_is_asked_for_an_unknown_method(stage: ModuleType) -> None:
    compute = Compute(device="cpu", dtype="float32", threads=1, batch_tokens=1, cache_tokens=1)
    given = {"compute": compute, "seed": 0, "method": "drao", "settings": SimpleNamespace(method="drao")}
    with pytest.raises(UserError, match="got 'drao'; correct the name"):
        stage.run(**{name: given.get(name) for name in inspect.signature(stage.run).parameters})


def test_a_baselines_section_is_its_methods() -> None:
    assert train_baseline.Settings.location({"method": "dora"}) == "dora"
    with pytest.raises(UserError, match="'ia3.adapter.feedforward' is missing"):
        training = {"steps": 1, "batch": 1, "learning_rate": 1.0, "schedule": "cosine", "warmup": 0.0, "clip": 1.0}
        training |= {"weight_decay": 0.0, "validate_every": 1, "validation_examples": 1, "checkpoint_every": 1}
        train_baseline.Settings.parse({"adapter": {"modules": ["k_proj"]}, "training": training}, "ia3")


def test_each_objective_has_its_place() -> None:
    assert train_next_token.Variant.location({"variant": "a-0"}) == "ablations.next_token.a-0"
    assert train_policy.Variant.location({"variant": "a-0"}) == "ablations.policy_gradient.a-0"
