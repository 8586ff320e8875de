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
ABOUT = "selfadapt.json"  # beside peft's files


def base_digest(model: Path) -> str:
    """What tells one base model from another: a hash of its weights."""
    return hashlib.sha256("".join(digest(path) for path in sorted(model.glob("*.safetensors"))).encode()).hexdigest()


def read_exported(folder: Path, model: Path) -> tuple[Adapter, list[Form]]:
    """The expert that a folder holds, if it was trained for the base model in ``model``, and the forms of its tasks.

    A folder that peft has saved says nothing of its base model, unless it was exported here: see ``ABOUT``.
    """
    if (folder / "adapter_config.json").is_file():
        from pipeline.serving.peft.folder import read  # imports peft

        about = read_json(folder / ABOUT) if (folder / ABOUT).is_file() else {}
        return intact(folder, read(folder)), _checked(about, folder / ABOUT, model) if about else []
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or not {"kind", "config", "base_sha256"} <= set(config):
        raise UserError(f"expected an exported expert in {folder}, got another config.json; export it again")
    forms = _checked(config, folder / CONFIG, model)
    path = folder / WEIGHTS
    tensors, _ = read_tensors(path)
    try:
        adapter = method_module(config["kind"], "from_state", where=str(path)).from_state(config["config"], tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"expected an expert of kind '{config['kind']}' in {path}, got other tensors ({error!r}); export it again"
        ) from None
    return intact(path, adapter), forms


def _checked(about: Any, path: Path, model: Path) -> list[Form]:
    """The forms that a file tells, if it is of an expert for the base model in ``model``."""
    with formed(path, "what is to be known of an expert", "export it again"):
        if about["base_sha256"] != base_digest(model):
            raise UserError(
                f"expected an expert for the base model in {model}, got one for another in {path.parent}; export it "
                "from there"
            )
        return [Form(str(form["task"]), tuple(_turn(turn) for turn in form["turns"])) for form in about["forms"]]


def _turn(turn: Any) -> dict[str, str]:
    return {"role": str(turn["role"]), "content": str(turn["content"])}
