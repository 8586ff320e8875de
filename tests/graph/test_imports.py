"""Who may import whom."""

import sys
from pathlib import Path

import pytest

from tests.graph.code import PACKAGES, ROOT, closure, imports, module_file, name_of, our_files

# What each part of the library may import of ours; the longest name that fits counts. A part may import itself,
# unless it is one of the families whose members stand alone.
ALLOWED = {
    "pipeline": [],
    "pipeline.core": ["pipeline.core"],
    "pipeline.core.types": [],
    "pipeline.scoring": ["pipeline.core.types", "pipeline.core.errors"],
    "pipeline.tasks": ["pipeline.core.types", "pipeline.core.config", "pipeline.core.errors", "pipeline.scoring"],
    # Tasks that are another one's, but for where their training data come from.
    "pipeline.tasks.commonsense_170k": ["pipeline.core.types", "pipeline.tasks.commonsense"],
    "pipeline.tasks.math_10k": ["pipeline.core.types", "pipeline.tasks.arithmetic"],
    "pipeline.tasks.alpaca": ["pipeline.core.types", "pipeline.core.config", "pipeline.tasks.ultrafeedback"],
    **{f"pipeline.tasks.{name}": ["pipeline.tasks.ultrafeedback"] for name in ("chat", "evol_instruct", "flan")},
    "pipeline.data.bases": ["pipeline.core"],
    "pipeline.data.tables": ["pipeline.core"],
    "pipeline.methods.common.edits": ["pipeline.core"],
    "pipeline.training.growing": ["pipeline.core", "pipeline.methods.common.edits"],
    "pipeline.methods.common.peft": ["pipeline.core"],
    "pipeline.training.variants": ["pipeline.core"],
    "pipeline.methods": ["pipeline.core", "pipeline.methods.common.edits", "pipeline.methods.common.peft"],
    "pipeline.training": ["pipeline.core"],
    "pipeline.training.reading": ["pipeline.core"],
    "pipeline.training.skills": ["pipeline.core", "pipeline.training"],
    "pipeline.training.next_token": ["pipeline.core", "pipeline.training", "pipeline.training.variants"],
    "pipeline.adaptation": ["pipeline.core", "pipeline.adaptation.record"],
    "pipeline.adaptation.search": ["pipeline.core", "pipeline.adaptation.candidates", "pipeline.methods.svf"],
    "pipeline.adaptation.transfer": ["pipeline.core"],
    "pipeline.evaluation.spectra": [],
    "pipeline.scoring.metrics": ["pipeline.core.errors", "pipeline.core.types", "pipeline.scoring.metrics"],
    "pipeline.evaluation.intervals": ["pipeline.core", "pipeline.scoring.metrics"],
    "pipeline.evaluation.interference": ["pipeline.core", "pipeline.evaluation.intervals"],
    "pipeline.reporting": ["pipeline.core", "pipeline.reporting"],
    "pipeline.reporting.commits": ["pipeline.core", "pipeline.evaluation.intervals", "pipeline.reporting"],
    "pipeline.reporting.statistics": [
        "pipeline.core",
        "pipeline.evaluation.intervals",
        "pipeline.scoring.metrics",
        "pipeline.reporting",
    ],
    "pipeline.reporting.publish": [
        "pipeline.core",
        "pipeline.evaluation.intervals",
        "pipeline.reporting",
        "pipeline.reporting.statistics",
    ],
    "pipeline.flow.server": [],
    "pipeline.flow.warm": [],
    "pipeline.flow.lock": ["pipeline.core"],
    "pipeline.flow": [
        "pipeline.core",
        "pipeline.flow",
        "pipeline.flow.lock",
        "pipeline.flow.server",
        "pipeline.flow.warm",
    ],
    "pipeline.flow.stages": ["pipeline.core"],
    "pipeline.serving": [
        "pipeline.core",
        "pipeline.methods",
        "pipeline.adaptation.dispatch",
        "pipeline.flow.stages",
        "pipeline.serving",
    ],
    "pipeline.serving.commands": ["pipeline.core.errors", "pipeline.serving"],
    "pipeline.evaluation.judges": ["pipeline.core", "pipeline.scoring"],
    "pipeline.evaluation.budget": [
        "pipeline.core",
        "pipeline.methods.svf",
        "pipeline.data.bases",
        "pipeline.data.tables",
    ],
    "selfadapt.cli": ["pipeline"],
    "stages": ["pipeline"],
    "selfadapt": ["pipeline.core.errors", "pipeline.serving"],
}
FAMILIES = ["pipeline.scoring", "pipeline.tasks", "pipeline.methods", "pipeline.training", "pipeline.adaptation"]
HEAVY = ["factorize", "train_svf", "train_baseline", "train_reft", "train_csreft", "fit_classifier", "dispatch"]
HEAVY += ["train_next_token", "train_policy", "train_skills", "grow_skills", "train_head", "classify"]
HEAVY += ["adapt", "search", "tune", "merge", "transfer", "generate", "weigh", "agree", "judge"]
THROUGH_PEFT = ["train_baseline", "merge", "train_next_token", "train_policy"]
BARE_IMAGE = {"torch", "transformers", "safetensors", "numpy", "yaml", "pydantic", "tqdm"}


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def member(name: str) -> str:
    """``pipeline.scoring.code`` of ``pipeline.scoring.code.sandbox``: a member may be a folder of several files."""
    family = next((family for family in FAMILIES if within(name, family)), None)
    return ".".join(name.split(".")[: family.count(".") + 2]) if family else name


@pytest.mark.parametrize("file", our_files(), ids=name_of)
def test_imports_follow_the_direction(file: Path) -> None:
    name = name_of(file)
    part = max((part for part in ALLOWED if within(name, part)), key=len)
    for module in sorted(imports(file).modules):
        if module.split(".")[0] not in PACKAGES:
            continue
        assert module_file(module), f"{name} imports {module}, which is not there"
        own = member(module) == member(name) or (file.name == "__init__.py" and within(module, name))
        assert own or any(within(module, allowed) for allowed in ALLOWED[part]), f"{name} may not import {module}"


def third_parties(files: set[Path]) -> dict[str, str]:
    """The libraries that some files import, each with one file that does."""
    return {
        module.split(".")[0]: name_of(file)
        for file in files
        for module in imports(file).modules
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
    assert users == ["pipeline.flow.run", "pipeline.flow.recorder"]


def test_stages_do_not_import_each_other() -> None:
    for file in (ROOT / "stages").glob("*.py"):
        assert not [module for module in imports(file).modules if within(module, "stages")], name_of(file)
