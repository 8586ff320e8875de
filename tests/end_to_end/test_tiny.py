"""The whole graph on the profile tiny: run once, then asked what a user would ask of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml

from pipeline.core.artifacts import digest, read_jsonl, read_tensors
from pipeline.core.config import lookup, read_plan
from pipeline.core.types import Example
from pipeline.data.splits import normalised
from tests.clone import ENV, clone, dvc

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(2400)]  # three minutes, on two cores with nothing else to do


@pytest.fixture(scope="session")
def project(root, tmp_path_factory):
    """A copy of the project, as git would clone it, after `dvc repro` on the profile tiny."""
    folder = clone(root, tmp_path_factory.mktemp("tiny") / "project")
    dvc(folder, "repro")
    return folder


def changed_stages(folder: Path) -> set[str]:
    return set(json.loads(dvc(folder, "status", "--json")))


@contextmanager
def edited(path: Path, edit: Callable[[str], str]) -> Iterator[None]:
    """A file of the project with another text inside the block, and with its own again afterwards."""
    before = path.read_text()
    try:
        path.write_text(edit(before))
        yield
    finally:
        path.write_text(before)


def doubled(place: str) -> Callable[[str], str]:
    """An edit of params.yaml: twice the number at a dotted place."""

    def edit(text: str) -> str:
        params = yaml.safe_load(text)
        section, _, name = place.rpartition(".")
        lookup(params, section)[name] *= 2
        return yaml.safe_dump(params)

    return edit


def test_the_report_says_what_the_run_found(project):
    metrics = json.loads((project / "reports" / "metrics.json").read_text())
    params = yaml.safe_load((project / "params.yaml").read_text())
    for cell in read_plan(project / "plan.yaml")["cells"].values():
        for table in cell["tables"]:
            found = metrics[table][cell["row"]][cell["task"]]
            assert found["n"] == params["splits"]["test"]
            assert 0 <= found["low"] <= found["mean"] <= found["high"] <= 1
    page = (project / "reports" / "index.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_what_the_run_has_made_can_be_used_at_once(project, tmp_path):
    def selfadapt(*words: str) -> str:
        command = [sys.executable, "-m", "selfadapt.cli", *words]
        done = subprocess.run(command, cwd=project, env=ENV, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    compared = selfadapt("compare", "What is 12 + 30?", "-n", "4")
    listed = selfadapt("experts", "list")
    for name in ("expert:svf-sums-0", "lora:lora-sums-0", "loreft", "csreft", "mixture:few_shot-groceries-0"):
        assert name in compared
        assert name in listed
    selfadapt("export", "expert:sums", str(tmp_path / "expert"), "--as", "expert")
    card = (tmp_path / "expert" / "README.md").read_text()
    assert "| sums | " in card
    assert selfadapt("generate", "What is 12 + 30?", "-s", f"expert:{tmp_path / 'expert'}", "-n", "4")


def test_a_second_repro_runs_nothing(project):
    assert "Running stage" not in dvc(project, "repro")
    assert changed_stages(project) == set()


def test_splits_are_disjoint_across_all_tasks(project):
    seen = {}
    for path in sorted((project / "data" / "tasks").glob("*/*.jsonl")):
        for row in read_jsonl(path):
            text = normalised(Example(**row))
            assert seen.setdefault(text, path) == path, f"{text!r} stands in {seen[text]} and in {path}"


def after_an_edit(project: Path, path: str, edit: Callable[[str], str]) -> set[str]:
    """The stages that DVC would run once a file of the project is edited and the fingerprints are taken anew."""
    with edited(project / path, edit):
        dvc(project, "repro", "code")
        changed = changed_stages(project)
    dvc(project, "repro", "code")
    return changed


def test_a_docstring_and_a_comment_of_the_decode_loop_rerun_nothing(project):
    assert after_an_edit(project, "pipeline/model/decoding/answer.py", lambda text: f"# said anew\n{text}") == set()


def test_changing_a_scorer_touches_no_other_task_and_generates_nothing(project):
    changed = after_an_edit(project, "pipeline/scoring/choices/__init__.py", lambda text: text + "\nCHANGED = 1\n")
    assert "train_svf@kinds-0" in changed
    assert not [name for name in changed if name.startswith("generate@")]
    assert not [name for name in changed if "sums" in name or "functions" in name or "groceries" in name]


def test_a_plan_that_is_behind_is_said_and_the_next_run_works(project):
    twice = edited(project / "params.yaml", lambda text: text.replace("seeds: [0]", "seeds: [0, 1]"))
    with edited(project / "plan.yaml", lambda text: text), twice:
        refused = subprocess.run(["dvc", "repro", "code"], cwd=project, env=ENV, capture_output=True, text=True)
        assert refused.returncode != 0
        assert (
            "error: expected the plan of params.yaml, but plan.yaml was behind and has been written again; run again"
            in refused.stderr
        )
        assert "Running stage 'plan'" in dvc(project, "repro", "code")
        assert "train_svf@sums-1" in changed_stages(project)
    dvc(project, "repro", "code")
    assert changed_stages(project) == set()


@pytest.mark.parametrize(
    ("place", "stage"),
    [
        ("classifier.learning_rate", "fit_classifier@classifier-0"),
        ("rows.few_shot_light.search.generations", "adapt@few_shot_light-groceries-0"),
        ("rows.lora_3_steps_1.training.steps", "train_supervised@lora_3_steps_1-groceries-0"),
    ],
)
def test_changing_one_number_reruns_what_reads_it_alone(project, place, stage):
    with edited(project / "params.yaml", doubled(place)):
        # the reports read every setting: they print it; the plan is looked at again, and is the same
        reports = {"report@tiny", "compare_benchmarks@heads", "compare_skills@interference"}
        assert changed_stages(project) == {stage, "plan", *reports}


def test_an_expert_moved_to_a_model_of_equal_shape_is_the_same_to_the_bit(project):
    artifacts = project / "artifacts"
    own, _ = read_tensors(artifacts / "experts/svf-sums-0.safetensors")
    moved, _ = read_tensors(artifacts / "transferred/tuned-ordered-sums-0.safetensors")
    assert moved.keys() == own.keys()
    assert all(torch.equal(moved[name], own[name]) for name in own)
    deeper, meta = read_tensors(artifacts / "transferred/deep-ordered-sums-0.safetensors")
    assert meta["provenance"]["resampled"] > 0
    assert len(deeper) > len(own)


@pytest.mark.parametrize("stage", ["train_svf@sums-0", "train_csreft@csreft-0", "adapt@few_shot-groceries-0"])
def test_a_stage_killed_midway_resumes_to_the_same_bytes(project, stage):
    resolved = yaml.safe_load((project / "dvc.lock").read_text())["stages"][stage]
    outputs = [project / out["path"] for out in resolved["outs"]]
    expected = [digest(path) for path in outputs]
    for path in outputs:
        path.unlink()
    shutil.rmtree(project / ".selfadapt" / "checkpoints", ignore_errors=True)
    running = subprocess.Popen(
        ["dvc", "repro", "--single-item", "--force", "--no-run-cache", stage],
        cwd=project,
        env=ENV,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list((project / ".selfadapt" / "checkpoints").glob("*/*.safetensors")):
        assert running.poll() is None, "the stage ended before its first checkpoint was seen"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not any(path.exists() for path in outputs)
    assert list((project / ".selfadapt" / "checkpoints").glob("*/*.safetensors"))
    dvc(project, "repro", "--single-item", "--force", "--no-run-cache", stage)
    assert [digest(path) for path in outputs] == expected
    assert not list((project / ".selfadapt" / "checkpoints").glob("*/*.safetensors"))
