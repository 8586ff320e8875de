"""What a project's plan names, by short names and by whole ones."""

import shutil

import pytest
import yaml

from pipeline.core.errors import UserError
from pipeline.flow import plan
from pipeline.serving.project import Project
from tests.project import ROOT


def planned(folder, profile="tiny", **changes) -> Project:
    """A project that was planned, and of which nothing was made."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_load((ROOT / f"pipeline/profiles/{profile}.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump({**settings, **changes}, sort_keys=False))
    plan.update(folder / "params.yaml", folder / "plan.yaml")
    return Project(folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return planned(tmp_path_factory.mktemp("planned"))


def test_what_is_served_is_of_the_base_model_and_of_all_skills(project):
    assert {*project.experts} == {"svf-sums-0", "svf-functions-0", "svf-kinds-0"}
    assert {"lora-sums-0", "lora-functions-0", "lora-kinds-0", "best_lora-groceries-0"} == {*project.loras}
    assert {*project.adapters} == {"loreft-0", "csreft-0"}
    assert {"few_shot-groceries-0", "uniform-groceries-0"} <= {*project.mixtures}
    assert not [name for name in (*project.mixtures, *project.experts) if name.startswith("tuned")]


def test_a_domain_s_expert_is_that_of_its_first_trained_task(project, tmp_path):
    assert project.domains == {"math": "svf-sums-0", "code": "svf-functions-0", "reasoning": "svf-kinds-0"}
    tasks = yaml.safe_load((ROOT / "pipeline/profiles/tiny.yaml").read_text())["tasks"]
    tasks["groceries"]["role"] = "trained"
    tables = {"table1": {"tasks": "trained", "rows": ["base", "svf"]}}
    wider = planned(tmp_path / "wider", tasks=tasks, tables=tables, skill_reports={}, spectra={}, heads={})
    assert "svf-groceries-0" in wider.experts
    assert wider.domains["math"] == "svf-sums-0"


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("expert:sums", "expert:svf-sums-0"),
        ("expert:sums-0", "expert:svf-sums-0"),
        ("expert:svf-sums-0", "expert:svf-sums-0"),
        ("sums", "expert:svf-sums-0"),
        ("lora:sums", "lora:lora-sums-0"),
        ("lora:best_lora-groceries", "lora:best_lora-groceries-0"),
        ("csreft", "csreft-0"),
        ("loreft-0", "loreft-0"),
        ("mixture:few_shot-groceries", "mixture:few_shot-groceries-0"),
        ("prompt", "prompt"),
        ("base", "base"),
    ],
)
def test_a_short_name_stands_for_a_whole_one(project, name, whole):
    assert project.full(name) == whole


def test_a_short_name_means_the_first_seed(tmp_path):
    project = planned(tmp_path, seeds=[2, 1])
    assert {"svf-sums-2", "svf-sums-1"} <= {*project.experts}
    assert project.full("expert:sums") == "expert:svf-sums-2"
    assert project.full("expert:sums-1") == "expert:svf-sums-1"
    assert project.domains["math"] == "svf-sums-2"
    assert project.classifier == project.artifact("classifier/classifier-2")
    assert project.full("csreft") == "csreft-2"


@pytest.mark.parametrize("name", ["", "x", "expert:x", "expert:", "lora:x", "mixture:x", "csreft-9", "classifier-0:x"])
def test_a_name_of_nothing_is_one_sentence(project, name):
    with pytest.raises(UserError, match="expected .*, got "):
        project.full(name)


def test_a_folder_without_a_plan_says_what_to_run(project, tmp_path):
    shutil.copyfile(project.folder / "params.yaml", tmp_path / "params.yaml")
    with pytest.raises(UserError, match="expected plan.yaml in .*; run 'selfadapt plan' there"):
        Project(tmp_path)
    (tmp_path / "plan.yaml").write_text("plan: {train_svf: {sums-0: {seed: 0}}}")
    with pytest.raises(UserError, match="as 'selfadapt plan' writes it"):
        Project(tmp_path)
