"""A method that the report has never heard of, and Table 4: what its rows are, say and stand beside."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch

from pipeline.model.forward.adapters import Attachment, load_adapter, save_adapter
from pipeline.reporting.planned import read_plan
from pipeline.reporting.read import Run, kept_of_sweep
from pipeline.reporting.tables import ablations
from stages import report
from tests.made import PARAMS, TRAINED, UNSEEN, make_run


class Seventh:
    """An adapter that changes nothing, of a kind that is nowhere in the project."""

    kind = "seventh"

    def config(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, torch.Tensor]:
        return {"numbers": torch.zeros(7)}

    @contextmanager
    def attached(self, model, factors):
        yield Attachment()


def reported(root: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        report.run(**arguments)
    return json.loads(arguments["metrics"].read_text())


def test_a_seventh_method_has_a_row_in_tables_1_2_and_7(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("pipeline.methods.seventh")
    module.from_state = lambda config, tensors: Seventh()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    changes = {
        "rows": {"seventh": {"method": "seventh", "from": "train_supervised"}},
        "seventh": {"adapter": {}, "training": {"like": "lora.training"}},
        "tables": {
            "table1": {"tasks": "trained", "rows": ["base", "svf", "seventh"]},
            "table2": {"tasks": "unseen", "rows": ["base", "seventh"]},
            "table7": {"tasks": list(PARAMS["tasks"]), "rows": ["base", "seventh"]},
        },
    }
    arguments = make_run(tmp_path, examples=6, layers=2, changes=changes)
    for task in TRAINED.values():
        path = tmp_path / f"artifacts/experts/seventh-{task}-0.safetensors"
        save_adapter(path, Seventh(), {"method": "seventh", "task": task, "seed": 0, "base": "Toy", "parameters": 7})
    assert isinstance(load_adapter(path)[0], Seventh)
    metrics = reported(tmp_path, arguments)
    assert set(metrics["table7"]["seventh"]) == {*TRAINED.values(), *UNSEEN.values(), "mean_over_tasks"}
    for table, tasks in (("table1", TRAINED), ("table2", UNSEEN), ("table7", {**TRAINED})):
        entry = metrics[table]["seventh"][tasks["math"]]
        assert entry["n"] == 6 and entry["low"] <= entry["mean"] <= entry["high"] and "diff" in entry
        page = (tmp_path / f"reports/site/{table}.html").read_text()
        assert '<th scope="row">seventh</th>' in page and "0 % of the base" not in page
        (line,) = [
            one for one in (tmp_path / f"reports/tables/{table}.md").read_text().splitlines() if "| seventh" in one
        ]
        assert "| 7; 5.2e-06 % of the base; 12 steps × 4 prompts" in line


SVF = {"modules": ["q_proj", "v_proj"], "parametrisation": "direct", "init_mean": 0.1, "init_std": 0.01}
REWARDED = {"learning_rate": 2e-3, "temperature": 1.0, "advantage": "rloo", "kl_coefficients": [0.1]}
VARIANTS = {
    "svf-next": {"method": "svf", "from": "train_supervised", "adapter": SVF, "training": {"steps": 3}},
    "svf-mlp": {
        "method": "svf",
        "from": "train_reinforce",
        "adapter": {"like": "svf", "modules": list(ablations.MLP)},
    },
    "svf-greedy": {
        "method": "svf",
        "from": "train_reinforce",
        "training": {"like": "reinforce", "temperature": 0.0},
    },
    "lora-reward": {"method": "lora", "from": "train_reinforce", "adapter": {"modules": ["q_proj"]}},
}


@pytest.fixture(scope="module")
def table4(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run, dict[str, Any]]:
    """A made-up run of the ablation: its folder, what is read of it, and the metrics of its report."""
    root = tmp_path_factory.mktemp("ablation")
    changes = {
        "rows": VARIANTS,
        "tables": {"table4": {"tasks": ["sums"], "rows": ["base", "svf", *VARIANTS]}},
        "svf": {**SVF, "modules": [*ablations.ATTENTION, *ablations.MLP]},
        "reinforce": REWARDED,
    }
    arguments = make_run(root, examples=8, layers=2, changes=changes)
    for name in VARIANTS:
        path = root / f"artifacts/experts/{name}-sums-0.safetensors"
        save_adapter(path, Seventh(), {"task": "sums", "parameters": 163_840})
    plan = read_plan(arguments["plan"])
    run = Run(plan, arguments["settings"], pd.DataFrame(), {}, {}, {}, {})
    return root, run, reported(root, arguments)


def test_rows_of_table_4_say_how_they_were_trained_and_what_the_paper_has(table4) -> None:
    root, run, metrics = table4
    labels = {row: one.label for row, one in ablations.rows_of(run).items()}
    assert labels == {
        "svf": "SVF, policy gradient, MLP + attention (q, k, v, o)",
        "svf-next": "SVF, next token, attention (q, v)",
        "svf-mlp": "SVF, policy gradient, MLP",
        "svf-greedy": "SVF, policy gradient, MLP + attention (q, k, v, o), temperature 0.0",
        "lora-reward": "LoRA, policy gradient, attention (q)",
    }
    text = (root / "reports/tables/table4.md").read_text()
    assert all(f"| {label} |" in text for label in labels.values())
    assert "163\u202f840; 0.122 % of the base; paper: 0.39 million" in text  # svf-mlp
    papers = text.partition("| *paper, Llama-3-8B-Instruct* | GSM8K |")[2]
    assert "| SVF, next token, attention (q, v) | 60.50 |" in papers
    assert "| SVF, policy gradient, MLP + attention (q, k, v, o), temperature" not in papers
    assert set(metrics["table4"]) == {"base", *labels}
    assert all(metrics["table4"][row]["sums"]["n"] == 8 for row in labels)


def test_the_ablation_speaks_of_each_claim_of_the_paper(table4) -> None:
    text = (table4[0] / "reports/tables/table4.md").read_text()
    assert "- SVF under policy gradient improves on the base model, whether it scales MLPs, attention or both: " in text
    assert "Compared: 2 of 3 pairs." in text  # the experts themselves scale both
    assert "- SVF of both kinds of modules gains more than SVF of either: " in text


def test_table_6_says_of_a_variant_what_differs(table4) -> None:
    run = table4[1]
    rows = dict(ablations.variant_settings(run.plan, run.settings))
    assert rows["policy gradient: svf-greedy-sums-0.training.temperature"] == "0.0"
    assert rows["policy gradient: svf-mlp-sums-0.adapter.modules"] == "gate_proj, up_proj, down_proj"
    assert "policy gradient: svf-mlp-sums-0.training.temperature" not in rows
    assert "svf-greedy-sums-0.training.temperature" in (table4[0] / "reports/tables/settings.md").read_text()


def test_a_variants_curve_is_not_drawn_among_the_experts(table4) -> None:
    figure = (table4[0] / "reports/figures/figure4.svg").read_text()
    assert '"Learning curves of sums-0, functions-0, oldest-0"' in figure
    assert "svf-mlp" not in (table4[0] / "reports/figures/figure4-classifier.svg").read_text()


def test_of_a_sweep_the_pair_that_was_kept_is_shown() -> None:
    rows = [
        {
            "step": step,
            "validation": 0.5,
            "chosen": (rate, clip, step) == (2, 0.1, 1),
            "learning_rate": rate,
            "clip": clip,
        }
        for rate in (1, 2)
        for clip in (0.1, 1.0)
        for step in (0, 1)
    ]
    kept = kept_of_sweep(pd.DataFrame(rows))
    assert kept[["learning_rate", "clip"]].drop_duplicates().to_numpy().tolist() == [[2, 0.1]]
    assert list(kept["step"]) == [0, 1]
