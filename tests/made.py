"""A run that never was: its settings, its plan and its files, as the report reads them. Every number is made up."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from pipeline.core.artifacts import write_json, write_jsonl, write_tensors
from pipeline.core.config import merged, read_params
from pipeline.evaluation.spectra import FRACTIONS
from pipeline.flow import plan as planner
from pipeline.reporting.planned import Adaptation, Plan, RunSettings, Training, read_plan

TRAINED = {"math": "sums", "code": "functions", "reasoning": "oldest"}
UNSEEN = {"math": "groceries", "code": "repairs", "reasoning": "queue"}
PUBLISHED = Path(__file__).resolve().parents[1] / "data/published"
# Rules without a model, each with its share of right answers; the best of them is below every row.
RULES = {"the first choice": 0.1, "the commonest answer in training": 0.05}
# Share of right answers, by row.
RIGHT = {"base": 0.3, "lora": 0.4, "svf": 0.6, "loreft": 0.45, "csreft": 0.55}
RIGHT |= {"best_lora": 0.3, "prompt": 0.35, "classifier": 0.45, "few_shot": 0.5}
STEPS = 12  # of every training
TRAINING = {"learning_rate": 2e-3, "steps": STEPS, "batch": 4}
PARAMS: dict[str, Any] = {
    "profile": "laptop",
    "seeds": [0],
    "bases": {"base": {"source": "path"}},
    "compute": {"device": "cpu", "dtype": "bfloat16", "threads": 2},
    "tasks": {
        task: {"role": role, "data": {"domain": domain}}
        for role, tasks in (("trained", TRAINED), ("unseen", UNSEEN))
        for domain, task in tasks.items()
    },
    "svf": {"modules": ["up_proj", "down_proj"], "parametrisation": "direct"},
    "reinforce": {**TRAINING, "samples": 3, "kl_coefficients": [0.1]},
    "lora": {"adapter": {"modules": ["q_proj", "v_proj"]}, "training": TRAINING},
    "reft": {"adapter": {"rank": 4}, "training": {"like": "lora.training"}},
    "csreft": {"adapter": {"rank": 4}, "training": {"like": "reft.training"}},
    "classifier": {"like": "reinforce", "temperature": 2.0},
    "few_shot": {"shots": 10},
    "rows": {
        "base": {"method": "base"},
        "svf": {"method": "svf", "from": "train_svf"},
        "lora": {"method": "lora", "from": "train_supervised"},
        "loreft": {"method": "reft", "from": "train_skills"},
        "csreft": {"method": "csreft", "from": "train_csreft"},
        "prompt": {"method": "svf", "from": "dispatch", "asks": "prompt"},
        "classifier": {"method": "svf", "from": "dispatch", "asks": "classifier"},
        "few_shot": {"method": "svf", "from": "adapt", "strategy": "few_shot"},
        "best_lora": {"method": "lora", "from": "adapt", "strategy": "select", "experts": "lora"},
    },
    "tables": {
        "table1": {"tasks": "trained", "rows": ["base", "lora", "svf"]},
        "table2": {"tasks": "unseen", "rows": ["base", "best_lora", "prompt", "classifier", "few_shot"]},
        "csreft": {"tasks": "trained", "rows": ["base", "loreft", "csreft"]},
    },
    "report": {"resamples": 300, "seed": 0, "samples": 1},
}
TRAINING_EXAMPLES = 30
# What a step of a training from rewards measures, beside its reward.
SIGNAL = {"tokens": 9.0, "mixed": 0.4, "cosine": 0.2, "entropy": 0.6, "kl": 0.01, "largest": 0.03}
PARAMETERS = {"lora": 460_800, "reft": 18_448, "csreft": 222_000}  # by method; of any other, those of SVF
SVF_PARAMETERS = 118_080


def make_run(
    root: Path,
    *,
    examples: int = 40,
    layers: int = 30,
    params: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the files of a run that never was under ``root``; returns the arguments of the stage report.

    examples: prompts of each task. layers: rows of α of the searches that have one for each layer.
    params: the settings, in place of those made up here. changes: laid over them.
    """
    settings = merged(PARAMS if params is None else params, changes or {})
    (root / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    planner.update(root / "params.yaml", root / "plan.yaml")
    plan = read_plan(root / "plan.yaml")
    made = Made(root / "artifacts", random.Random(0), examples, layers)
    for task in yaml.safe_load((root / "plan.yaml").read_text())["plan"]["prepare"]:
        write_jsonl(root / f"data/tasks/{task}/test.jsonl", made.prompts(task))
        write_jsonl(root / f"data/tasks/{task}/train.jsonl", [{}] * TRAINING_EXAMPLES)
    made.cells(plan)
    made.rules(plan)
    made.adapter("base/base", method="base", parameters=0, base_parameters=134_515_008)
    made.trained(plan)
    made.adapted(plan, settings)
    made.records(root / ".selfadapt/runs", plan)
    report = yaml.safe_load((root / "plan.yaml").read_text())["plan"]["report"][settings["profile"]]
    return {
        "settings": RunSettings.read(read_params(root / "params.yaml"), {}),
        "plan": root / "plan.yaml",
        "examples": root / "data/tasks",
        **{part: root / "artifacts" / part for part in ("scores", "completions", "curves")},
        "adapters": [root / folder for folder in report["adapters"].split()],
        "base": root / "artifacts/base/base.safetensors",
        "published": PUBLISHED,
        "published_runs": root / "reports/published",
        **outputs(root / "reports"),
    }


def outputs(folder: Path) -> dict[str, Path]:
    """What the report writes."""
    return {
        "headline": folder / "headline.json",
        "metrics": folder / "metrics.json",
        "plots": folder / "plots",
        "tables": folder / "tables",
        "figures": folder / "figures",
        "page": folder / "index.html",
        "site": folder / "site",
        "runs": folder / "runs",
    }


class Made:
    """Writes the files under ``artifacts``, each number drawn from ``draw``."""

    def __init__(self, artifacts: Path, draw: random.Random, examples: int, layers: int) -> None:
        self.artifacts, self.draw, self.examples, self.layers = artifacts, draw, examples, layers
        for folder in ("scores", "completions", "curves"):
            (artifacts / folder).mkdir(parents=True, exist_ok=True)

    def prompts(self, task: str) -> list[dict[str, Any]]:
        """The test split of a task."""
        return [
            {
                "id": f"{task}-{number}",
                "messages": [{"role": "user", "content": f"{task} {number}: is <b>1 & 2</b> less than 4?\nThink."}],
                "target": "yes <end>",
                "meta": {"task": task, "answer": "A" if number % 3 else "B", "choices": {"A": "yes", "B": "no"}},
            }
            for number in range(self.examples)
        ]

    def cells(self, plan: Plan) -> None:
        """Scores and completions of every cell."""
        for name, cell in plan.cells.items():
            ids = [f"{cell.task}-{number}" for number in range(self.examples)]
            unread = [number % 40 == 5 for number in range(self.examples)]
            right = [self.draw.random() < RIGHT.get(cell.row, 0.5) and not lost for lost in unread]
            frame = pd.DataFrame(
                {
                    "id": ids,
                    "value": [float(correct) for correct in right],
                    "correct": right,
                    "parsed": [None if lost else self.draw.choice(["yes", "no"]) for lost in unread],
                    "marked": [number % 10 > 0 for number in range(self.examples)],
                    "tokens": [self.draw.randint(2, 32) for _ in ids],
                    "prompt_tokens": 40,
                    "finished": [number % 40 != 1 for number in range(self.examples)],
                }
            )
            frame.to_parquet(self.artifacts / f"scores/{name}.parquet")
            texts = ["yes" if correct else "maybe so, since the first is less" for correct in right]
            answers = [
                {"id": one, "text": f"I think <i>{text}</i>", "tokens": 9, "prompt_tokens": 40, "finished": True}
                for one, text in zip(ids, texts, strict=True)
            ]
            write_jsonl(self.artifacts / f"completions/{name}.jsonl", answers)

    def rules(self, plan: Plan) -> None:
        """What rules without a model are right for, of every task that the plan names: the first so many examples."""
        (self.artifacts / "scores/heuristics").mkdir(exist_ok=True)
        for task in plan.heuristics:
            lines = [
                {"rule": rule, "id": f"{task}-{number}", "value": float(number < share * self.examples)}
                for rule, share in RULES.items()
                for number in range(self.examples)
            ]
            pd.DataFrame(lines).assign(answer="yes").to_parquet(self.artifacts / f"scores/heuristics/{task}.parquet")

    def adapter(self, path: str, **provenance: Any) -> None:
        """An adapter's file, which says where it comes from."""
        meta = {"kind": "svf", "config": {}, "provenance": {"base": "Toy-135M", "seed": 0, **provenance}}
        write_tensors(self.artifacts / f"{path}.safetensors", {"z": torch.zeros(8)}, meta)

    def trained(self, plan: Plan) -> None:
        """Adapters and curves of all that is trained, and what routers open."""
        by_rewards = [*plan.train_svf.values(), *plan.train_reinforce.values()]
        together = [*plan.train_skills.values(), *plan.train_csreft.values(), *plan.grow_skills.values()]
        for item in (*by_rewards, *plan.train_supervised.values(), *together):
            about = {"tasks": list(TRAINED.values())} if item in together else {"task": item.task}
            if item.method == "csreft":
                about["parameters_without_router"] = 55_344
            count = PARAMETERS.get(item.method, SVF_PARAMETERS)
            self.adapter(item.adapter, method=item.method, seed=item.seed, parameters=count, **about)
            self.curve(item.curve_path, rewarded=item in by_rewards)
        for key, classifier in plan.fit_classifier.items():
            self.adapter(classifier.adapter, method="svf", tasks=list(TRAINED.values()), parameters=SVF_PARAMETERS)
            self.curve(f"curves/{key}.jsonl", rewarded=True)
        for item in (*plan.train_csreft.values(), *plan.grow_skills.values()):
            self.gates(item)
        for name in plan.spectra:
            self.spectra(name, [Path(item.adapter).name for item in plan.train_svf.values()])

    def curve(self, path: str, *, rewarded: bool) -> None:
        """A learning curve: of two coefficients where there are rewards, else of losses."""
        rows: list[dict[str, Any]] = []
        for step in range(STEPS + 1):
            validation = 0.3 + 0.02 * step + self.draw.uniform(-0.03, 0.03) if step % 3 == 0 else None
            reward = -0.8 + 0.09 * step + self.draw.uniform(-0.1, 0.1)
            for coefficient in (0.1, 0.2) if rewarded else (0.1,):
                row = {"step": step, "validation": validation, "chosen": step == STEPS and coefficient == 0.1}
                if rewarded:
                    mean = reward - coefficient if step else None
                    row |= {"objective": "reinforce", "train": mean, "kl_coefficient": coefficient}
                    rows.append({**row, **(SIGNAL if step else {})})
                else:
                    rows.append({**row, "objective": "next_token", "train": 2 - 0.025 * step})
        write_jsonl(self.artifacts / path, rows)

    def gates(self, item: Training) -> None:
        """What a router opens on prompts of each trained task."""
        rows = []
        for place, skill in enumerate(TRAINED.values()):
            for number in range(20):
                gates = [float(self.draw.random() < (0.9 if place == other else 0.2)) for other in range(3)]
                rows.append({"id": f"{skill}-{number}", "skill": skill, "gates": gates, "probabilities": gates})
        write_jsonl(self.artifacts / f"{item.adapter}.gates.jsonl", rows)

    def spectra(self, name: str, experts: Sequence[str]) -> None:
        """Shares of the top singular components of a base model and its experts."""
        lines = [
            {"of": of, "module": module, "layer": layer, "top": top, "share": top**0.5}
            for of in ("sigma", *experts)
            for module in ("q_proj", "up_proj")
            for layer in range(3)
            for top in FRACTIONS
        ]
        pd.DataFrame(lines).to_parquet(self.artifacts / f"curves/spectra-{name}.parquet")

    def adapted(self, plan: Plan, settings: Mapping[str, Any]) -> None:
        """What dispatchers name, and what searches come to."""
        domains = {task: about["data"]["domain"] for task, about in settings["tasks"].items()}
        for key, item in plan.dispatch.items():
            skill = 0.9 if item.row == "classifier" else 0.45
            rows = []
            for task, domain in domains.items():
                for number in range(self.examples):
                    named = domain if self.draw.random() < skill else self.draw.choice([*TRAINED, "others"])
                    row = {"id": f"{task}-{number}", "task": task, "domain": domain, "predicted": named}
                    rows.append({**row, "log_likelihoods": {}})
            write_jsonl(self.artifacts / f"dispatched/{key}.jsonl", rows)
        for place, item in enumerate(plan.adapt.values()):
            self.search(item, per_layer=place % 3 == 1)

    def search(self, item: Adaptation, *, per_layer: bool) -> None:
        """The trace of a search for α over SVF experts, or of the choice of a LoRA."""
        kind = "lora" if item.strategy == "select" else "svf"
        experts = [f"{kind}-{task}-0" for task in TRAINED.values()]
        alpha = [[self.draw.uniform(-0.2, 1) for _ in experts] for _ in range(self.layers if per_layer else 1)]
        final = {"final": True, "configuration": "x", "experts": experts, "alpha": alpha, "accuracy": 0.6}
        row = {"configuration": "x", "chosen": True, "elites_accuracy": 0.4, "accuracies": [0.3, 0.5]}
        trace = [{**row, "iteration": number, "best_accuracy": 0.5 + 0.1 * number} for number in range(2)]
        trace = [{**row, "prompts": 40 * (place + 1)} for place, row in enumerate(trace)]
        trace.append({**final, "normalised": not per_layer})
        write_jsonl(self.artifacts / f"{item.adapter}.jsonl", trace)
        self.adapter(item.adapter, method=item.strategy, task=item.task, parameters=3)

    def records(self, folder: Path, plan: Plan) -> None:
        """Records of some stages: the first takes 20.5 seconds, each other one a minute more than the one before."""
        names = ["download@base", *(f"train_svf@{task}-0" for task in TRAINED.values()), "dispatch@prompt-0"]
        names += [f"{stage}@groceries-prompt-0" for stage in ("generate", "score")]
        for number, name in enumerate(name for name in names if name in plan.stages):
            record = {"stage": name, "seconds": 20.5 + 60 * number, "peak_memory_bytes": (number + 1) * 2**30}
            record |= {"started_unix_seconds": number, "host": {"cores": 2, "machine": "x86_64"}, "arguments": {}}
            write_json(folder / f"{name}.json", record)


def plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of their own, to be changed."""
    copied: dict[str, Any] = json.loads(json.dumps(params))
    return copied
