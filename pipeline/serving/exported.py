"""The folder of an exported expert (``pipeline.serving.export`` writes it), read again."""

import hashlib
from pathlib import Path
from typing import Any

from pipeline.core.artifacts import digest, read_json, read_tensors
from pipeline.core.errors import UserError
from pipeline.core.reading import formed
from pipeline.model.forward.adapters import Adapter, method_module
from pipeline.serving.forms import Form
from pipeline.serving.project import intact

WEIGHTS, CONFIG = "expert.safetensors", "config.json"


def base_digest(model: Path) -> str:
    """What tells one base model from another: a hash of its weights."""
    return hashlib.sha256("".join(digest(path) for path in sorted(model.glob("*.safetensors"))).encode()).hexdigest()


def read_exported(folder: Path, model: Path) -> tuple[Adapter, Form]:
    """The expert that an exported folder holds, if it was trained for the base model in ``model``, and its form."""
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or not {"kind", "config", "base_sha256"} <= set(config):
        raise UserError(f"expected an exported expert in {folder}, got another config.json; export it again")
    if config["base_sha256"] != base_digest(model):
        raise UserError(
            f"expected an expert for the base model in {model}, got one for another in {folder}; export it from there"
        )
    path = folder / WEIGHTS
    tensors, _ = read_tensors(path)
    try:
        adapter = method_module(config["kind"], "from_state", where=str(path)).from_state(config["config"], tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"expected an expert of kind '{config['kind']}' in {path}, got other tensors ({error!r}); export it again"
        ) from None
    return intact(path, adapter), _form(config.get("form") or {}, folder / CONFIG)


def _form(value: Any, path: Path) -> Form:
    with formed(path, "the turns of a form", "export it again"):
        turns = tuple({"role": str(turn["role"]), "content": str(turn["content"])} for turn in value.get("turns", ()))
        return Form(str(value.get("task", "")), turns)
