"""Adapters of this project as peft has them: a configuration and tensors by its names; and read from a folder again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.core.artifacts import read_json, read_tensors, write_json, write_tensors
from pipeline.core.errors import UserError
from pipeline.core.reading import formed
from pipeline.methods import csreft, lora, reft, svf
from pipeline.methods.common.peft import PREFIX
from pipeline.model.forward.adapters import Adapter, Factors
from pipeline.model.forward.base import linear_modules
from pipeline.serving.peft import Kind
from pipeline.serving.peft.edits import PLACE, CsReftConfig, CsReftTuner, LoReftConfig, place_of
from pipeline.serving.peft.svf import SvfConfig, SvfTuner

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TASK = "CAUSAL_LM"
EDITS = f"{CsReftTuner.prefix}edits"
DELTA = f"{SvfTuner.prefix}delta"
# What makes another thing of a LoRA than W + (α/r) B A.
OTHERWISE = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "bias", "fan_in_fan_out")


def described(adapter: Adapter, model: nn.Module) -> tuple[PeftConfig, dict[str, Tensor]]:
    """An adapter as peft's configuration and its tensors, by the names of a saved folder. model: what it adapts."""
    if isinstance(adapter, svf.SvfAdapter):
        if adapter.mixture.axis == "prompt":
            raise UserError(
                "expected one adapter for every prompt, got a mixture for each of a test; name a single expert, or a "
                "mixture that a search on few-shot prompts found"
            )
        modules = _targets(adapter, model)
        return SvfConfig(task_type=TASK, target_modules=modules), {
            f"{PREFIX}{module}.{DELTA}": adapter.z(module)[0] - 1 for module in adapter.experts
        }
    if isinstance(adapter, lora.Lora):
        return LoraConfig(**{**adapter.config(), "target_modules": _short(adapter.modules, model)}), adapter.state()
    if isinstance(adapter, reft.Reft | csreft.CsReft):
        inside = f"{PREFIX}{place_of(model)}.{PLACE}.{EDITS}"
        return _edits(adapter), {f"{inside}.{name}": tensor for name, tensor in adapter.state().items()}
    raise UserError(f"expected SVF, LoRA, LoReFT or CS-ReFT, got '{adapter.kind}'; export it with --as expert")


def _edits(adapter: Any) -> PeftConfig:
    config = adapter.config()
    shape = {name: config[name] for name in ("layers", "positions", "tied")}
    shape |= {"task_type": TASK, "layer_names": config.get("layer_names")}
    if isinstance(adapter, csreft.CsReft):
        own = {name: config[name] for name in ("skills", "orthonormal", "router")}
        return CsReftConfig(**shape, **own, rank=adapter.rotation.shape[2] // adapter.skills)
    return LoReftConfig(**shape, formula=config["formula"], rank=adapter.rotation.shape[2])


def _targets(adapter: svf.SvfAdapter, model: nn.Module) -> list[str]:
    return _short(tuple(adapter.experts), model)


def _short(modules: tuple[str, ...], model: nn.Module) -> list[str]:
    """The modules as last parts of names, where those name the same ones."""
    parts = sorted({name.rpartition(".")[2] for name in modules})
    return parts if set(linear_modules(model, parts)) == set(modules) else sorted(modules)


def unloaded(folder: Path) -> nn.Module:
    """The modules of the model in a folder, without its weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))


def write(folder: Path, adapter: Adapter, model: Path) -> None:
    """peft's two files. model: the folder of the base model."""
    config, tensors = described(adapter, unloaded(model))
    values = {name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()}
    write_json(folder / CONFIG, {**values, "base_model_name_or_path": "", "inference_mode": True})
    write_tensors(folder / WEIGHTS, tensors, {})


def tuned(model: nn.Module, adapter: Adapter, *, factors: Factors | None = None, trainable: bool = False) -> PeftModel:
    """A model with an adapter in peft's layers. factors: of the model, where they are there already.

    trainable: gradients reach the adapter.
    """
    config, tensors = described(adapter, model)
    config.inference_mode = not trainable
    if factors is not None and isinstance(config, SvfConfig) and factors.path.is_file():
        config.factors = str(factors.path)
    made = get_peft_model(model, config)
    if unexpected := set_peft_model_state_dict(made, tensors).unexpected_keys:
        raise UserError(f"expected an adapter of this model, got '{unexpected[0]}' too many; name another model")
    return made.eval()


def read(folder: Path) -> Adapter:
    """The adapter that a trainer or an export left in a folder as peft's two files."""
    value = read_json(folder / CONFIG)
    kind = value.get("peft_type") if isinstance(value, dict) else None
    tensors = {name: tensor.float() for name, tensor in read_tensors(folder / WEIGHTS)[0].items()}
    with formed(folder, "an adapter of peft's", "save it again"):
        if kind == Kind.SVF:
            ending = f".{DELTA}"
            if not all(name.endswith(ending) for name in tensors):
                raise UserError(f"expected the scales of matrices alone in {folder}, got other tensors; use it in peft")
            return svf.single({_module(name, ending): 1 + delta for name, delta in tensors.items()}, folder.name)
        if kind == "LORA":
            if other := [name for name in OTHERWISE if value.get(name) not in (None, False, "none", {}, [])]:
                raise UserError(f"expected a plain LoRA in {folder}, got one with {other[0]}; use it in peft")
            return lora.Lora(value, tensors)
        if kind in (Kind.LOREFT, Kind.CSREFT):
            return _read_edits(kind, value, {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()})
    raise UserError(
        f"expected an adapter of the kinds {', '.join(Kind)} or LORA in {folder}, got '{kind}'; name another folder"
    )


def _module(name: str, ending: str) -> str:
    return name.removeprefix(PREFIX).removesuffix(ending)


def _read_edits(kind: str, value: Mapping[str, Any], tensors: dict[str, Tensor]) -> Adapter:
    config = {name: value[name] for name in ("layers", "positions", "tied")}
    if value.get("layer_names"):
        config["layer_names"] = value["layer_names"]
    if kind == Kind.LOREFT:
        return reft.from_state({**config, "formula": value["formula"]}, tensors)
    return csreft.from_state({**config, **{name: value[name] for name in ("skills", "orthonormal", "router")}}, tensors)
