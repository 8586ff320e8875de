"""``selfadapt doctor``: what the pipeline needs, looked at."""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path

import typer

from pipeline.core.errors import UserError
from selfadapt.settings import PARAMS


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor() -> None:
    """Look at what the pipeline needs; each line that is not ok says what to do."""
    from pipeline.flow import identity

    identity.complete()  # DVC opens no project for a user whom the system does not know
    checks: list[tuple[str, Callable[[], str]]] = [
        ("libraries", _libraries),
        ("settings", _settings),
        ("DVC", _dvc),
        ("Prefect server", _server),
        ("base model", _base),
        ("weights", _weights),
        ("sandbox", _sandbox),
    ]
    bad = 0
    for name, look in checks:
        try:
            print(f"ok   {name}: {look()}")
        except UserError as error:
            bad += 1
            print(f"BAD  {name}: {error}")
    if bad:
        raise typer.Exit(1)


def _libraries() -> str:
    from packaging.requirements import Requirement

    remedy = "run 'make repro', or 'pip install --editable .' in an environment of your own"
    try:
        lines = importlib.metadata.requires("selfadapt") or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"expected the package selfadapt to be installed, but it is not; {remedy}") from None
    wrong, right = [], 0
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            version = "nothing"
        if version != "nothing" and requirement.specifier.contains(version, prereleases=True):
            right += 1
        else:
            wrong.append(f"{requirement.name}{requirement.specifier}, got {version}")
    if wrong:
        raise UserError(f"expected {'; '.join(wrong)}; {remedy}")
    return f"{right} as pinned in pyproject.toml"


def _settings() -> str:
    from pipeline.flow.stages import problems

    if found := problems(PARAMS):
        raise UserError(f"{found[0]} ('selfadapt profile check' lists {len(found)})")
    return f"{PARAMS} fits every stage"


def _dvc() -> str:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return f"{len(repo.index.graph.nodes)} stages"
    except DvcException as error:
        raise UserError(f"expected DVC's graph, got: {error}; run this in the project's folder") from None


def _server() -> str:
    from pipeline.flow import server

    if not server.wanted():
        return "not wanted (SELFADAPT_PREFECT=off)"
    if api := server.running():
        return f"up at {api.removesuffix('/api')}"
    if importlib.util.find_spec("prefect") is None:
        raise UserError("expected prefect to be installed, but it is not; run 'pip install --editable .'")
    return "not up; the first run starts one"


def _base() -> str:
    from pipeline.core.stage import STATE

    model = Path("artifacts/base/model")
    if not model.exists() and not any((STATE / "runs").glob("*.json")):
        return f"not in {model} yet; the first run makes it"
    if not (model / "config.json").is_file() or not list(model.glob("*.safetensors")):
        raise UserError(f"expected the base model in {model}, which is not there; run 'dvc repro' or 'dvc checkout'")
    size = sum(file.stat().st_size for file in model.rglob("*") if file.is_file())
    return f"{model}, {size / 1e6:.0f} MB"


def _weights() -> str:
    from pipeline.core.artifacts import check_tensors

    files = sorted(path for path in Path("artifacts").rglob("*.safetensors") if path.parent.name != "model")
    summed = sum(bool(check_tensors(path)) for path in files)
    return f"{summed} of {len(files)} files with checksums, all as they were written"


def _sandbox() -> str:
    from pipeline.scoring.code.sandbox import isolation

    found = isolation()
    if "namespaces" not in found:
        raise UserError(
            f"expected model-written code to run in namespaces of its own, got {found}; allow unprivileged user "
            "namespaces, or run everything in a container without network"
        )
    return found
