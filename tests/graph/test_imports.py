"""Who may import whom: downward, room by room."""

import sys
from pathlib import Path

import pytest

from tests.graph.code import PACKAGES, ROOT, closure, code, module_file, name_of, our_files, unfollowed

COMMANDS = ("cli", "doctor", "graph", "running", "settings", "watching")
# What each room may import of ours, beside itself; the longest name that fits counts.
ALLOWED = {
    "pipeline": [],
    "pipeline.core": [],
    "pipeline.core.types": [],
    "pipeline.pictures": ["pipeline.core.errors"],
    "pipeline.model.forward": ["pipeline.core", "pipeline.pictures.files"],
    "pipeline.model.decoding": ["pipeline.core", "pipeline.model.forward", "pipeline.pictures.files"],
    "pipeline.model": [],
    "pipeline.scoring": ["pipeline.core.types", "pipeline.core.errors"],
    # A task may stand on another: a union on its parts.
    "pipeline.tasks": [
        "pipeline.core.types",
        "pipeline.core.config",
        "pipeline.core.errors",
        "pipeline.scoring",
        "pipeline.pictures",
    ],
    "pipeline.data": ["pipeline.core", "pipeline.pictures.files"],
    "pipeline.data.bases": ["pipeline.core", "pipeline.model.forward.tower"],
    "pipeline.methods": ["pipeline.core", "pipeline.model"],
    "pipeline.training": ["pipeline.core", "pipeline.model", "pipeline.methods.common", "pipeline.pictures"],
    "pipeline.training.recipes": ["pipeline.core", "pipeline.model.forward.adapters"],
    "pipeline.adaptation": ["pipeline.core", "pipeline.model", "pipeline.methods.svf"],
    "pipeline.evaluation": ["pipeline.core", "pipeline.model", "pipeline.scoring"],
    "pipeline.evaluation.parameters": [
        "pipeline.core",
        "pipeline.model",
        "pipeline.methods",
        "pipeline.training.recipes",
    ],
    "pipeline.evaluation.memory": [
        "pipeline.core",
        "pipeline.model",
        "pipeline.methods",
        "pipeline.evaluation.parameters",
    ],
    "pipeline.evaluation.budget": [
        "pipeline.core",
        "pipeline.data",
        "pipeline.training.recipes",
        "pipeline.evaluation.memory",
        "pipeline.evaluation.parameters",
    ],
    "pipeline.reporting": [
        "pipeline.core",
        "pipeline.data.splits",
        "pipeline.evaluation",
        "pipeline.pictures.files",
        "pipeline.scoring.metrics",
        "pipeline.training.recipes",
    ],
    "pipeline.flow": ["pipeline.core", "pipeline.training.recipes"],
    "pipeline.serving": [
        "pipeline.core",
        "pipeline.model",
        "pipeline.methods",
        "pipeline.adaptation.dispatch",
        "pipeline.evaluation.intervals",
    ],
    "stages": ["pipeline"],
    "selfadapt": ["pipeline.core.errors", "pipeline.serving"],
    **{
        f"selfadapt.{name}": ["pipeline", "selfadapt"]
        for name in ("cli", "doctor", "entry", "graph", "running", "settings", "watching")
    },
}
# Families whose members stand alone: a method imports no other method.
FAMILIES = ["pipeline.scoring", "pipeline.methods"]
SHARED = [
    "pipeline.methods.common",
    "pipeline.scoring.marks",
    "pipeline.scoring.metrics",
]  # what several members of a family share
HEAVY = ["factorize", "train_svf", "train_reinforce", "train_supervised", "train_skills", "train_csreft", "grow_skills"]
HEAVY += ["train_head", "classify", "fit_classifier", "dispatch", "adapt", "merge", "transfer", "generate", "weigh"]
HEAVY += ["agree", "judge"]
THROUGH_PEFT = ["train_supervised", "merge", "train_reinforce"]
BARE_IMAGE = {"torch", "transformers", "safetensors", "numpy", "yaml", "pydantic", "tqdm", "PIL"}


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def member(name: str) -> str:
    """``pipeline.scoring.code`` of ``pipeline.scoring.code.sandbox``: a member may be a folder of several files."""
    family = next((family for family in FAMILIES if within(name, family)), None)
    return ".".join(name.split(".")[: family.count(".") + 2]) if family else ""


@pytest.mark.parametrize("file", our_files(), ids=name_of)
def test_imports_follow_the_direction(file: Path) -> None:
    name = name_of(file)
    part = max((part for part in ALLOWED if within(name, part)), key=len)
    assert not unfollowed(file), f"{name}: import_module of something that cannot be followed"
    for module in sorted(code.file(file).modules):
        if module.split(".")[0] not in PACKAGES:
            continue
        assert module_file(module), f"{name} imports {module}, which is not there"
        family = any(within(name, one) for one in FAMILIES)
        own = member(module) == member(name) if family else within(module, part)
        shared = family and any(within(module, one) for one in SHARED)
        assert own or shared or any(within(module, allowed) for allowed in ALLOWED[part]), (
            f"{name} may not import {module}"
        )


def third_parties(files: set[Path]) -> dict[str, str]:
    """The libraries that some files import, each with one file that does."""
    return {
        module.split(".")[0]: name_of(file)
        for file in files
        for module in code.file(file).modules
        if module.split(".")[0] not in (*sys.stdlib_module_names, *PACKAGES)
    }


def test_the_types_need_the_standard_library_alone() -> None:
    assert not third_parties({ROOT / "pipeline/core/types.py"})


def test_scoring_needs_no_torch() -> None:
    for file in (ROOT / "pipeline/scoring").rglob("*.py"):
        assert not {"torch", "transformers"} & third_parties(closure(file)).keys(), name_of(file)


@pytest.mark.parametrize("stage", HEAVY)
def test_heavy_stages_run_in_a_bare_image(stage: str) -> None:
    allowed = BARE_IMAGE | ({"peft"} if stage in THROUGH_PEFT else set())
    extra = {
        library: where
        for library, where in third_parties(closure(ROOT / "stages" / f"{stage}.py")).items()
        if library not in allowed
    }
    assert not extra


def test_only_the_flow_imports_prefect() -> None:
    users = [name_of(file) for file in our_files() if "prefect" in third_parties({file})]
    flow = ("machines.flow", "recorder", "run", "tags")
    assert users == [f"pipeline.flow.{name}" for name in flow]


def test_stages_do_not_import_each_other() -> None:
    for file in (ROOT / "stages").glob("*.py"):
        if file.stem == "train_svf":  # the same as train_reinforce, under the name that everything else speaks of
            continue
        assert not [module for module in code.file(file).modules if within(module, "stages")], name_of(file)
