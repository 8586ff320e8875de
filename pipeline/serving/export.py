"""Experts to take away: a merged checkpoint, or a folder with one expert, its configuration and a model card.

*merged*: the base model with the expert written into its weights (SVF experts, mixtures over everything or by layer,
LoRA), as ``save_pretrained`` writes it: transformers alone loads it, and llama.cpp's ``convert_hf_to_gguf.py`` turns
it into GGUF (no package installs that script; the source archive of ``llama-cpp-python`` holds it, and it needs
``sentencepiece``). Edits of hidden states hang on the prompt's tokens and are no weights; a first pass decides anew for
every prompt: neither can be merged.

*expert*: ``expert.safetensors``, ``config.json`` and ``README.md``, the card, with the data it was trained on and what
the report measured. ``expert:FOLDER`` uses it again, on the base model it was trained for.

*peft*: peft's own two files, which ``PeftModel.from_pretrained`` loads behind ``import selfadapt``
(``pipeline.serving.peft``), the card, and in ``selfadapt.json`` what peft has no place for. ``expert:FOLDER`` uses it,
too, and any folder that a trainer has saved one of these methods in.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from pipeline.core.artifacts import atomic_folder, write_json, write_tensors
from pipeline.core.errors import UserError
from pipeline.methods.svf import materialised_weights
from pipeline.model.forward.adapters import Adapter, Attachment, Factors
from pipeline.model.forward.base import DTYPES, Base, load_base
from pipeline.model.forward.tower import ColumnTowerConfig
from pipeline.serving.exported import ABOUT, CONFIG, WEIGHTS, base_digest
from pipeline.serving.measured import Measured, measured
from pipeline.serving.project import Project
from pipeline.serving.rows import Way
from pipeline.serving.strategies import Strategies

USE_IN_PEFT = """import selfadapt  # has peft know the method
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("BASE")
model = PeftModel.from_pretrained(base, "FOLDER")"""


def _empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"expected {folder} to be new or empty, but it holds something; name another folder")


def merged(project: Project, strategy: str, folder: Path, dtype: str = "float32") -> None:
    """Write the base model with an expert in its weights. dtype: of what is written."""
    _empty(folder)
    if dtype not in DTYPES:
        raise UserError(f"expected --dtype to be one of {', '.join(DTYPES)}, got '{dtype}'; correct it")
    base = load_base(project.model, project.compute().model_copy(update={"dtype": "float32"}))
    way = Strategies(project, base, project.factors).named(strategy)
    if not isinstance(way, Way):
        raise UserError(
            f"expected one expert or mixture to merge, got '{strategy}', which decides for every prompt; name another"
        )
    with _in_the_weights(base.model, project.factors, way), atomic_folder(folder) as temporary:
        base.whole.to(DTYPES[dtype])
        base.save(temporary)
        (temporary / "README.md").write_text(
            _front({"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["selfadapt"]})
            + f"# {strategy}, merged\n\nThe base model '{_base_name(project)}' with `{strategy}` written into its "
            f"weights, {dtype}. {_loads(base)}\n",
            encoding="utf-8",
        )


def _loads(base: Base) -> str:
    """How a merged checkpoint is loaded."""
    tower = getattr(getattr(base.whole.config, "vision_config", None), "model_type", "")
    if tower == ColumnTowerConfig.model_type:
        return "Loads with transformers once `pipeline.model.forward.tower`, which has its tower, is imported."
    return "Loads with transformers alone."


def _in_the_weights(model: nn.Module, factors: Factors, way: Way) -> AbstractContextManager[Attachment | None]:
    if way.edits:
        raise UserError(
            f"expected an expert that can be written into weights, got '{way.name}', which edits hidden states of the "
            "prompt; export it with --as expert"
        )
    if way.z:
        return materialised_weights(model, factors, way.z)
    return way.lora.attached(model, factors) if way.lora else nullcontext()


def _base_name(project: Project) -> str:
    return project.model.parent.name


def expert(project: Project, strategy: str, folder: Path) -> None:
    """Write one expert, with its configuration and a model card."""
    _empty(folder)
    adapter, about, text = _described(project, strategy, 'selfadapt generate --strategy expert:FOLDER "…"', "sh")
    config = {"kind": adapter.kind, "config": adapter.config(), **about}
    with atomic_folder(folder) as temporary:
        write_tensors(temporary / WEIGHTS, adapter.state(), {})
        write_json(temporary / CONFIG, config)
        (temporary / "README.md").write_text(text, encoding="utf-8")


def peft(project: Project, strategy: str, folder: Path) -> None:
    """Write one expert as peft has it."""
    from pipeline.serving.peft.folder import write  # imports peft

    _empty(folder)
    adapter, about, text = _described(project, strategy, USE_IN_PEFT, "python")
    with atomic_folder(folder) as temporary:
        write(temporary, adapter, project.model)
        write_json(temporary / ABOUT, about)
        (temporary / "README.md").write_text(text, encoding="utf-8")


def _described(project: Project, strategy: str, use: str, language: str) -> tuple[Adapter, dict[str, Any], str]:
    """An adapter, what is to be known of it, and its card, which shows how it is used."""
    path = project.file_of(strategy)
    adapter, provenance = project.read(path)
    about = {
        "provenance": provenance,
        "base": _base_name(project),
        "base_sha256": base_digest(project.model),
        "forms": [{"task": form.task, "turns": list(form.turns)} for form in project.forms(provenance)],
    }
    text = card(strategy, adapter, provenance, measured(project, path), project.params)
    return adapter, about, f"{text}\n## Use\n\n```{language}\n{use}\n```\n"


def _front(value: Mapping[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(dict(value), sort_keys=True, allow_unicode=True)}---\n\n"


def card(
    strategy: str,
    adapter: Adapter,
    provenance: Mapping[str, Any],
    numbers: Sequence[Measured],
    params: Mapping[str, Any],
) -> str:
    """A model card: what it is, what it was trained on, what it does."""
    tasks = provenance.get("tasks") or [provenance.get("task")]
    sizes = params.get("splits", {})
    known = {task: {**sizes, **params["tasks"][task]["data"]} for task in tasks if task in params["tasks"]}
    data = [
        f"- `{name}` ({data['domain']}): {data['train']} prompts, seed {data['seed']}" for name, data in known.items()
    ]
    rows = [
        f"| {score.task} | {100 * score.mean:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}] | "
        f"{'' if score.base is None else f'{100 * score.base:.1f}'} | {score.n} |"
        for score in numbers
    ]
    results = ["| task | accuracy, % [95 % interval] | base | prompts |", "|---|---|---|---|", *rows]
    front = {"library_name": "selfadapt", "tags": ["selfadapt", adapter.kind], "pipeline_tag": "text-generation"}
    lines = [
        f"# {strategy}",
        "",
        f"An adapter of kind `{adapter.kind}`, method `{provenance['method']}`, {provenance['parameters']} trained "
        f"parameters, seed {provenance.get('seed')}, profile `{params['profile']}`, for the base model "
        f"`{provenance['base']}` whose hash stands beside.",
        "",
        "## Data",
        "",
        *(data or ["Generated prompts; see the provenance beside."]),
        "",
        "## Results",
        "",
        *(results if rows else ["No cell that it answered was scored."]),
    ]
    return _front(front) + "\n".join(lines) + "\n"


def check_repository(repository: str) -> None:
    """Whether a model hub could have a repository of this name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"expected a repository as OWNER/NAME, got '{repository}': {error}; correct it") from None


def push(folder: Path, repository: str, *, dry_run: bool) -> list[tuple[str, int]]:
    """Upload an exported folder to a model hub; returns its files and sizes. dry_run: check all, upload nothing."""
    from huggingface_hub import HfApi, ModelCard
    from huggingface_hub.errors import HfHubHTTPError

    check_repository(repository)
    ModelCard.load(folder / "README.md")
    files = [(str(path.relative_to(folder)), path.stat().st_size) for path in sorted(folder.rglob("*"))]
    if not dry_run:
        try:
            HfApi().create_repo(repository, exist_ok=True)
            HfApi().upload_folder(repo_id=repository, folder_path=folder)
        except (HfHubHTTPError, OSError) as error:
            raise UserError(
                f"expected to upload to '{repository}', but the hub could not be used: {' '.join(str(error).split())}; "
                "log in with 'hf auth login', or use --dry-run"
            ) from None
    return files
