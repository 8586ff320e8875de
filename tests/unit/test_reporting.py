"""The report of a made-up run: its structure, its words, its bytes."""

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
import torch
import yaml

from pipeline.core.artifacts import digest, write_json, write_jsonl, write_tensors
from pipeline.core.errors import UserError
from pipeline.reporting import tables
from pipeline.reporting.run import RunSettings, read_scores
from stages import report

TRAINED = {"math": "sums", "code": "functions", "reasoning": "oldest"}
UNSEEN = {"math": "groceries", "code": "repairs", "reasoning": "queue"}
PUBLISHED = Path(__file__).resolve().parents[2] / "data/published"
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


def make_run(root: Path, *, examples: int = 40, seeds: int = 1, layers: int = 30) -> dict[str, Any]:
    """Write files of a run that never was under ``root``; returns the arguments of the stage report."""
    draw = random.Random(0)
    cells = cells_of(seeds)
    params = {"profile": "laptop", "seed": 0, "trained": TRAINED, "unseen": UNSEEN, "cells": cells}
    params |= {"report": {"resamples": 300, "seed": 0, "samples": 1}, "tasks": {}, "compute": {}}
    params |= {
        name: {"learning_rate": 2e-3, "kl": {"coefficient": 0.1}, "modules": ["up", "down"]} for name in SECTIONS
    }
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
        right = [draw.random() < RIGHT[cell["row"]] for _ in ids]
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
        ["download@base", *(f"train_svf@{task}-0" for task in TRAINED.values()), "adapt@queue"]
    ):
        record = {"stage": name, "seconds": 20.5 + 60 * number, "peak_memory_bytes": (number + 1) * 2**30}
        record |= {"started_unix_seconds": number, "host": {"cores": 2, "machine": "x86_64"}}
        write_json(root / f".selfadapt/runs/{name}.json", record)
    parts = ("scores", "completions", "curves", "experts", "dispatched", "adapted")
    return {
        "settings": RunSettings.parse(params, ""),
        "examples": root / "data/tasks",
        **{part: artifacts / part for part in parts},
        "adapters": [artifacts / name for name in ("reft", "csreft", "classifier")],
        "base": artifacts / "base/base.safetensors",
        "published": PUBLISHED,
        **outputs(root / "reports"),
    }


def outputs(folder: Path) -> dict[str, Path]:
    return {
        "metrics": folder / "metrics.json",
        "tables": folder / "tables",
        "figures": folder / "figures",
        "page": folder / "index.html",
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A made-up run and its report, with two seeds of every expert."""
    root = tmp_path_factory.mktemp("run")
    arguments = make_run(root, seeds=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        report.run(**arguments)
    return root, arguments


def test_metrics_have_every_cell_with_its_interval_and_its_difference(made: tuple[Path, dict[str, Any]]) -> None:
    metrics = json.loads((made[0] / "reports/metrics.json").read_text())
    svf = metrics["table1"]["svf"]
    assert list(svf) == sorted([*TRAINED.values(), "mean_over_tasks"])
    cell = svf["sums"]
    assert {"mean", "low", "high", "n", "diff", "diff_low", "diff_high", "seeds"} <= set(cell)
    assert cell["n"] == 40 and cell["seeds"] == 2
    assert 0 <= cell["low"] <= cell["mean"] <= cell["high"] <= 1
    assert cell["diff"] == pytest.approx(cell["mean"] - metrics["table1"]["base"]["sums"]["mean"], abs=2e-6)
    assert "diff" not in metrics["table1"]["base"]["sums"]
    assert set(metrics["table2"]) == {"base", "best_lora", "prompt", "classifier", "few_shot"}
    assert set(metrics["csreft"]) == {"base", "loreft", "csreft"}
    assert set(metrics["dispatch"]["classifier"]) == {"trained", "unseen"}
    assert metrics["parameters"]["csreft/csreft"] == {"parameters": 222000, "parameters_without_router": 55344}
    assert metrics["baselines"]["queue"] == {"majority": 0.65, "random": 0.5}


def test_metrics_hold_nothing_that_varies_by_run(made: tuple[Path, dict[str, Any]]) -> None:
    text = (made[0] / "reports/metrics.json").read_text()
    assert not re.search("second|memory|host|core", text)
    assert not re.search(r"\d\.\d{7}", text)


def test_the_page_asks_nothing_of_the_network(made: tuple[Path, dict[str, Any]]) -> None:
    page = (made[0] / "reports/index.html").read_text()
    without_names = page.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "")
    assert "http" not in without_names and "//" not in re.sub(r"<pre>.*?</pre>", "", without_names, flags=re.DOTALL)
    assert "<script" not in page and "@import" not in page and "url(#" in page
    assert not re.search(r"url\((?!#)", page)


def test_the_page_is_well_formed_and_says_what_the_run_was_about(made: tuple[Path, dict[str, Any]]) -> None:
    page = (made[0] / "reports/index.html").read_text()
    open_tags: list[str] = []

    class Balanced(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in ("meta", "link", "br"):
                open_tags.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Balanced(convert_charrefs=True).feed(page)
    assert open_tags == []
    for words in (
        "Toy-135M",
        "paper: GSM8K,<br>Llama-3-8B-Instruct",
        "without router 55\u202f344, 0.0411 %",
        "79.15 %",
        "Commonest answer",
        "unparsed",
        "2 seeds",
        "CEM",
    ):
        assert words in page
    assert "is &lt;b&gt;1 &amp; 2&lt;/b&gt; less" in page and "<b>1 & 2</b>" not in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_two_renderings_are_the_same_bytes(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, arguments = made
    monkeypatch.chdir(root)
    report.run(**{**arguments, **outputs(tmp_path / "reports")})
    assert digest(tmp_path / "reports") == digest(root / "reports")


def test_figures_are_svg_without_a_date_and_fit_light_and_dark(made: tuple[Path, dict[str, Any]]) -> None:
    figures = sorted((made[0] / "reports/figures").glob("*.svg"))
    names = {figure.stem for figure in figures}
    assert {"figure4", "figure6", "figure7", "gates", "losses", "table1-accuracy", "table2-accuracy"} <= names
    alpha = (made[0] / "reports/figures/figure7.svg").read_text()
    assert "functions-0" in alpha and "lora" not in alpha  # selecting a LoRA mixes nothing
    for figure in figures:
        text = figure.read_text()
        ElementTree.fromstring(text)
        assert "dc:date" not in text and "#010203" not in text and "prefers-color-scheme:dark" in text


def test_the_order_of_the_cells_changes_no_number(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, arguments = made
    settings = arguments["settings"]
    turned = {name: dict(reversed(getattr(settings, name).items())) for name in ("cells", "trained", "unseen")}
    monkeypatch.chdir(root)
    report.run(**{**arguments, **outputs(tmp_path), "settings": settings.model_copy(update=turned)})
    assert (tmp_path / "metrics.json").read_bytes() == (root / "reports/metrics.json").read_bytes()


def test_tables_come_as_markdown_and_csv(made: tuple[Path, dict[str, Any]]) -> None:
    folder = made[0] / "reports/tables"
    names = {path.name for path in folder.iterdir()}
    assert {f"{n}.{e}" for n in ("table1", "table2", "csreft", "settings", "cost") for e in ("md", "csv")} <= names
    frame = pd.read_csv(folder / "table1.csv")
    metrics = json.loads((made[0] / "reports/metrics.json").read_text())
    line = frame[(frame["row"] == "svf") & (frame["task"] == "sums")].iloc[0]
    assert line["mean"] == pytest.approx(metrics["table1"]["svf"]["sums"]["mean"], abs=1e-6)
    assert line["paper"] == pytest.approx(0.7915) and line["paper_model"] == "Llama-3-8B-Instruct"
    text = (folder / "table1.md").read_text()
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def frame_of(row: str, verdicts: dict[str, str]) -> pd.DataFrame:
    lines = [{"row": row, "task": task, "verdict": word} for task, word in verdicts.items()]
    numbers = {"diff": 0.1, "diff_low": 0.05, "diff_high": 0.2}
    return pd.DataFrame([{**line, **numbers} for line in lines], columns=["row", "task", "verdict", *numbers])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("better", "better"), "holds in this run: better on sums and oldest"),
        (("better", "undecided"), "is not settled in this run: better on sums, undecided on oldest"),
        (("better", "worse"), "does not hold in this run: better on sums, worse on oldest"),
    ],
)
def test_a_claim_says_what_the_intervals_say(words: tuple[str, str], said: str) -> None:
    frame = frame_of("svf", dict(zip(("sums", "oldest"), words, strict=True)))
    claim = tables.table1_claim(frame, frame_of("svf", {}), {"sums": "math", "oldest": "reasoning"})
    assert said in claim and "not compared" in claim


def test_the_dispatch_sentence_admits_what_is_not_so() -> None:
    both = tables.dispatch_claim(frame_of("classifier", {"trained": "better", "unseen": "better"}))
    assert both.startswith("The classification expert beats the prompt")
    one = tables.dispatch_claim(frame_of("classifier", {"trained": "better", "unseen": "undecided"}))
    assert "does not, on all of them, beat" in one and "on the unseen tasks not provably more often" in one


def test_the_csreft_sentence_rests_on_the_mean_over_skills() -> None:
    loreft = frame_of("csreft", {"sums": "worse", "mean_over_tasks": "better"})
    claim = tables.csreft_claim(loreft, loreft, {"sums": "math"})
    assert "holds in this run" in claim and "+10.0 points, 95 % interval +5.0 to +20.0" in claim


def test_a_run_with_few_cells_is_reported_as_far_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = make_run(tmp_path, examples=3, layers=2)
    settings = arguments["settings"]
    few = {name: settings.cells[name] for name in ("base-sums", "svf-sums-0")}
    empty = {part: tmp_path / f"empty-{part}" for part in ("curves", "experts", "dispatched", "adapted")}
    for folder in empty.values():
        folder.mkdir()
    monkeypatch.chdir(tmp_path / "data")  # and no stage ran here
    few_arguments = {**arguments, **empty, "adapters": [], "settings": settings.model_copy(update={"cells": few})}
    report.run(**few_arguments)
    metrics = json.loads(arguments["metrics"].read_text())
    assert set(metrics) == {"table1", "csreft", "baselines", "parameters"}
    assert "so it says nothing of the paper" in arguments["page"].read_text()


def test_a_missing_score_file_is_one_sentence(tmp_path: Path) -> None:
    arguments = make_run(tmp_path, examples=2, layers=2)
    (arguments["scores"] / "svf-sums-0.parquet").unlink()
    with pytest.raises(UserError, match="run 'dvc repro score@svf-sums-0'"):
        read_scores(arguments["settings"], arguments["scores"])


def test_settings_are_read_from_the_whole_file_and_checked() -> None:
    with pytest.raises(UserError, match="'cells.base-sums.rwo' is not a known setting"):
        cells = {"base-sums": {**cells_of(1)["base-sums"], "rwo": "base"}}
        RunSettings.parse({"profile": "x", "seed": 0, "trained": {}, "unseen": {}, "cells": cells}, "")


def test_numbers_are_written_as_a_person_reads_them() -> None:
    written = [tables.cell_text(value) for value in (None, "x", 118080, 20.5, 0.041144, 12345.6)]
    assert written == ["–", "x", "118\u202f080", "20.5", "0.04114", "12\u202f346"]
    assert (tables.percent(0.5765), tables.signed(-0.05), tables.signed(0.05)) == ("57.6", "−5.0", "+5.0")
