"""A run that never was: its files, as the report reads them. Every number is made up, for tests of the report."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from pipeline.core.artifacts import write_json, write_jsonl, write_tensors
from pipeline.reporting.read import RunSettings

TRAINED = {"math": "sums", "code": "functions", "reasoning": "oldest"}
UNSEEN = {"math": "groceries", "code": "repairs", "reasoning": "queue"}
PUBLISHED = Path(__file__).resolve().parents[1] / "data/published"
SECTIONS = ("svf", "reinforce", "lora", "reft", "csreft", "classifier", "dispatch", "mixing", "few_shot")
# Share of right answers, by row: made up, and only for these tests.
RIGHT = {"base": 0.3, "lora": 0.4, "svf": 0.6, "loreft": 0.45, "csreft": 0.55}
RIGHT |= {"best_lora": 0.3, "prompt": 0.35, "classifier": 0.45, "few_shot": 0.5}


def cells_of(seeds: int) -> dict[str, Any]:
    """The cells of all three tables; base stands in two of them."""
    cells = {}

    def add(name: str, method: str, row: str, table: list[str], task: str, seed: int, adapter: str) -> None:
        settings = {"method": method, "row": row, "table": table, "task": task, "scorer": "numbers"}
        cells[name] = {**settings, "seed": seed, "adapter": adapter}

    for task in TRAINED.values():
        add(f"base-{task}", "base", "base", ["table1", "csreft"], task, 0, "base/base")
        add(f"lora-{task}-0", "lora", "lora", ["table1"], task, 0, f"experts/lora-{task}-0")
        for seed in range(seeds):
            add(f"svf-{task}-{seed}", "svf", "svf", ["table1"], task, seed, f"experts/svf-{task}-{seed}")
        for row, folder in (("loreft", "reft"), ("csreft", "csreft")):
            add(f"{row}-{task}", row, row, ["csreft"], task, 0, f"{folder}/{row}")
    for domain, task in UNSEEN.items():
        add(f"base-{task}", "base", "base", ["table2"], task, 0, "base/base")
        add(f"lora-{task}", "lora", "best_lora", ["table2"], task, 0, f"experts/lora-{TRAINED[domain]}-0")
        for row in ("prompt", "classifier"):
            add(f"{row}-{task}", "svf", row, ["table2"], task, 0, f"dispatched/{row}/{task}")
        add(f"few_shot-{task}", "svf", "few_shot", ["table2"], task, 0, f"adapted/{task}")
    return cells


def make_run(
    root: Path,
    *,
    examples: int = 40,
    seeds: int = 1,
    layers: int = 30,
    more_cells: Mapping[str, Mapping[str, Any]] | None = None,
    more_params: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write files of a run that never was under ``root``; returns the arguments of the stage report.

    more_params: in place of those made up here, the cells too; ``recipient_cells`` are scored as cells are.
    """
    draw = random.Random(0)
    cells = {**cells_of(seeds), **(more_cells or {})}
    params = {"profile": "laptop", "seed": 0, "trained": TRAINED, "unseen": UNSEEN, "cells": cells}
    params |= {"report": {"resamples": 300, "seed": 0, "samples": 1}, "tasks": {}}
    params["compute"] = {"device": "cpu", "dtype": "bfloat16", "threads": 2}
    params |= {
        name: {"learning_rate": 2e-3, "kl": {"coefficient": 0.1}, "modules": ["up", "down"]} for name in SECTIONS
    }
    params |= more_params or {}
    cells = {**params["cells"], **params.get("recipient_cells", {})}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    artifacts = root / "artifacts"
    for task in (*TRAINED.values(), *UNSEEN.values()):
        rows = []
        for number in range(examples):
            turns = [{"role": "user", "content": f"{task} {number}: is <b>1 & 2</b> less than 4?\nThink."}]
            meta = {"task": task, "answer": "yes" if number % 3 else "no", "options": ["yes", "no"]}
            rows.append({"id": f"{task}-{number}", "messages": turns, "target": "yes <end>", "meta": meta})
        write_jsonl(root / f"data/tasks/{task}/test.jsonl", rows)
    for name, cell in cells.items():
        ids = [f"{cell['task']}-{number}" for number in range(examples)]
        right = [draw.random() < RIGHT.get(cell["row"], 0.5) for _ in ids]
        text = [f"I think <i>{'yes' if one else 'maybe so, since the first is less'}</i>" for one in right]
        frame = pd.DataFrame(
            {
                "id": ids,
                "value": [float(one) for one in right],
                "correct": right,
                "parsed": ["yes" if one else draw.choice(["no", None]) for one in right],
                "tokens": [draw.randint(2, 32) for _ in ids],
                "prompt_tokens": 40,
                "finished": [draw.random() < 0.95 for _ in ids],
            }
        )
        (artifacts / "scores").mkdir(parents=True, exist_ok=True)
        frame.to_parquet(artifacts / f"scores/{name}.parquet")
        answers = [
            {"id": one, "text": said, "tokens": 9, "prompt_tokens": 40, "finished": True}
            for one, said in zip(ids, text, strict=True)
        ]
        write_jsonl(artifacts / f"completions/{name}.jsonl", answers)

    def adapter(path: str, **provenance: Any) -> None:
        meta = {"kind": "svf", "config": {}, "provenance": {"base": "Toy-135M", "seed": 0, **provenance}}
        write_tensors(artifacts / f"{path}.safetensors", {"z": torch.zeros(8)}, meta)

    adapter("base/base", method="base", parameters=0, base_parameters=134_515_008)
    for task in TRAINED.values():
        for seed in range(seeds):
            adapter(f"experts/svf-{task}-{seed}", method="svf", task=task, parameters=118_080)
            rows = []
            for step in range(16):
                validation = 0.3 + 0.02 * step + draw.uniform(-0.03, 0.03) if step % 3 == 0 else None
                reward = -0.8 + 0.09 * step + draw.uniform(-0.1, 0.1)
                row = {"step": step, "train": reward, "validation": validation, "chosen": step == 15}
                for coefficient in (0.1, 0.2):
                    better = coefficient == 0.1
                    row = {**row, "chosen": step == 15 and better, "kl_coefficient": coefficient}
                    mean = reward - coefficient if step else None
                    rows.append({**row, "objective": "reinforce", "train": mean})
            write_jsonl(artifacts / f"curves/svf-{task}-{seed}.jsonl", rows)
        adapter(f"experts/lora-{task}-0", method="lora", task=task, parameters=460_800)
    write_jsonl(artifacts / "curves/classifier.jsonl", rows)
    adapter("classifier/classifier", method="svf", tasks=list(TRAINED.values()), parameters=118_080)
    for name in (*(f"lora-{task}-0" for task in TRAINED.values()), "loreft", "csreft"):
        rows = []
        for step in range(0, 60, 5):
            validation = 1.9 - 0.021 * step if step % 10 == 0 else None
            row = {"step": step, "train": 2 - 0.025 * step, "validation": validation, "chosen": step == 50}
            rows.append({**row, "objective": "next_token"})
        write_jsonl(artifacts / f"curves/{name}.jsonl", rows)
    adapter("reft/loreft", method="loreft", tasks=list(TRAINED.values()), parameters=18_448)
    counts = {"parameters": 222_000, "parameters_without_router": 55_344}
    adapter("csreft/csreft", method="csreft", tasks=list(TRAINED.values()), **counts)
    gates = []
    for place, skill in enumerate(TRAINED.values()):
        for number in range(20):
            open_ = [float(draw.random() < (0.9 if place == one else 0.2)) for one in range(3)]
            gates.append({"id": f"{skill}-{number}", "skill": skill, "gates": open_, "probabilities": open_})
    write_jsonl(artifacts / "csreft/gates.jsonl", gates)
    for dispatcher, skill in (("prompt", 0.45), ("classifier", 0.9)):
        rows = []
        for domain, task in (*TRAINED.items(), *UNSEEN.items()):
            for number in range(examples):
                named = domain if draw.random() < skill else draw.choice([*TRAINED, "others"])
                row = {"id": f"{task}-{number}", "task": task, "domain": domain, "predicted": named}
                rows.append({**row, "log_likelihoods": {}})
        write_jsonl(artifacts / f"dispatched/{dispatcher}.jsonl", rows)
    for place, task in enumerate(UNSEEN.values()):
        rows_of_alpha = [[draw.uniform(-0.2, 1) for _ in TRAINED] for _ in range(layers if place == 1 else 1)]
        final = {"final": True, "configuration": "x", "experts": [f"svf-{one}-0" for one in TRAINED.values()]}
        final |= {"alpha": rows_of_alpha, "normalised": place == 0, "accuracy": 0.6}
        row = {"configuration": "x", "iteration": 0, "best_accuracy": 0.5, "mean_accuracy": 0.3}
        write_jsonl(artifacts / f"adapted/{task}.jsonl", [{**row, "prompts": 80, "chosen": True}, final])
        adapter(f"adapted/{task}", method="few_shot", task=task)
    final = {"final": True, "configuration": "x", "experts": ["lora-sums-0"], "alpha": [[1.0]]}
    write_jsonl(artifacts / "adapted/best_lora-queue.jsonl", [{**final, "normalised": False, "accuracy": 0.3}])
    adapter("adapted/best_lora-queue", method="select", task="queue", parameters=460_800)
    for number, name in enumerate(
        ["download@base", *(f"train_svf@{task}-0" for task in TRAINED.values()), "dispatch@prompt"]
        + [f"{stage}@prompt-groceries" for stage in ("generate", "score")]
    ):
        record = {"stage": name, "seconds": 20.5 + 60 * number, "peak_memory_bytes": (number + 1) * 2**30}
        record |= {"started_unix_seconds": number, "host": {"cores": 2, "machine": "x86_64"}, "arguments": {}}
        write_json(root / f".selfadapt/runs/{name}.json", record)
    parts = ("scores", "completions", "curves", "experts", "dispatched", "adapted")
    return {
        "settings": RunSettings.parse(params, ""),
        "examples": root / "data/tasks",
        **{part: artifacts / part for part in parts},
        "adapters": [artifacts / name for name in ("reft", "csreft", "classifier")],
        "base": artifacts / "base/base.safetensors",
        "published": PUBLISHED,
        "published_runs": root / "reports/published",
        **outputs(root / "reports"),
    }


def outputs(folder: Path) -> dict[str, Path]:
    return {
        "metrics": folder / "metrics.json",
        "tables": folder / "tables",
        "figures": folder / "figures",
        "page": folder / "index.html",
        "site": folder / "site",
        "runs": folder / "runs",
    }
