"""How many parameters each row of a profile trains, from the shape of its base model alone: no weights are read.

They are counted on a model of the base's shape on the meta device, by what each method trains:

    SVF       Σ min(out, in) over the targeted matrices, of the targeted layers
    LoRA      Σ rank · (out + in)
    DoRA      that + Σ out
    (IA)³     Σ out, or in where it scales what a matrix takes
    TinyLoRA  size · (vectors, as many as tying leaves of the matrices)
    LoReFT    edits · (2 · rank · hidden + rank); an edit per layer, and per prefix and suffix where they are not tied
    CS-ReFT   skills · that; its router hidden → hidden / 2 → skills is counted beside

and set beside what the papers state (``TABLE4``, ``SHARES``). Counts that differ say why.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core.config import lookup, settings
from pipeline.core.errors import UserError
from pipeline.core.reading import foreign, read_yaml
from pipeline.methods.svf import in_layers
from pipeline.model.forward.base import linear_modules
from pipeline.training.recipes import parts

BASE = "base"  # the base model that everything is done to, unless a table names another
SHAPES = Path(__file__).parents[2] / "data/published/shapes.yaml"
# Sections of the plan whose items train a row.
TRAINED = (
    *("train_svf", "train_reinforce", "train_supervised", "train_skills", "train_csreft", "grow_skills", "train_head"),
)
BY_REWARD = ("train_svf", "train_reinforce")
LLAMA3, LLAMA2, LLAMA = "meta-llama/Meta-Llama-3-8B-Instruct", "meta-llama/Llama-2-7b-hf", "huggyllama/llama-7b"
MLP, ATTENTION = ("gate_proj", "up_proj", "down_proj"), ("q_proj", "v_proj")
# What Transformer² counts in Table 4, on Llama 3: method and modules to its count, and why ours differs.
TABLE4 = {
    ("svf", frozenset(MLP)): ("0.39 M", ""),
    ("svf", frozenset(ATTENTION)): ("0.16 M", ""),
    ("svf", frozenset(MLP + ATTENTION)): (
        "0.58 M",
        "the paper's own rows add up to 0.55 M; no choice of whole matrices gives 0.58",
    ),
    ("lora", frozenset(ATTENTION)): ("6.82 M", ""),
    ("lora", frozenset(MLP + ATTENTION)): ("35.13 M", ""),
}
# What ReFT and CS-ReFT count, in percent of the base model, by its repository and the method or its formula.
SHARES = {
    LLAMA: {"loreft": "0.031", "direft": "0.031", "lora": "0.826", "dora": "0.838"},
    LLAMA2: {"loreft": "0.0039", "direft": "0.0039", "lora": "0.1245", "csreft": "0.0098"},
    "FacebookAI/roberta-base": {"loreft": "0.015", "lora": "0.239"},
}
NOTES = {
    (LLAMA2, "csreft"): "the paper's rank and layers are not stated; the router cannot be in its count",
    **{(LLAMA, name): "of base and adapter together" for name in ("lora", "dora")},
}


Item = Mapping[str, Any]  # of the plan: see pipeline.flow.plan
Plan = Mapping[str, Mapping[str, Item]]


class Count(NamedTuple):
    """what: the rows, their method and what it changes. ours: parameters. paper: as printed. note: why they differ."""

    what: str
    ours: int
    paper: str = ""
    note: str = ""


# ---- shapes ----------------------------------------------------------------------------------------------------------


def shape_of(base: Mapping[str, Any]) -> Any:
    """The configuration of a base model of params.yaml, as transformers has it. UserError where it is not known.

    Of a model with eyes it is that of the language part. That of a local folder is read from its config.json; that of a
    random model is stated; others are in ``SHAPES``.
    """
    from transformers import AutoConfig

    folder = Path(str(base.get("path", ""))).expanduser()
    if base.get("path") and (folder / "config.json").is_file():
        with foreign(folder, "a config.json that transformers reads", "correct it"):
            return AutoConfig.from_pretrained(folder).get_text_config()
    if "layers" in base:
        return _configured(
            {**base, "hidden": base["hidden_size"], "intermediate": base["intermediate_size"], "tied": True}
        )
    known = read_yaml(SHAPES)
    names = [str(base[key]) for key in ("repo", "requirement", "name") if base.get(key)]
    for name in names:
        if name in known:
            return _configured(known[name])
    folders = f", or a config.json in {folder}" if base.get("path") else ""
    raise UserError(
        f"expected the shape of {names[0] if names else 'the base model'} in {SHAPES.name}{folders}, which has "
        f"{', '.join(known)}; add it there"
    )


def _configured(shape: Mapping[str, Any]) -> Any:
    """A shape of ours as transformers' configuration."""
    from transformers import LlamaConfig, Qwen2Config, RobertaConfig

    common = {
        "hidden_size": shape["hidden"],
        "intermediate_size": shape["intermediate"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "vocab_size": shape["vocabulary"],
        "tie_word_embeddings": shape["tied"],
    }
    kind = shape.get("kind", "llama")
    if kind == "roberta":
        return RobertaConfig(**common, max_position_embeddings=shape["positions"], type_vocab_size=shape["types"])
    made = {"llama": LlamaConfig, "qwen2": Qwen2Config}[kind]
    return made(**common, num_key_value_heads=shape["key_value_heads"])


def meta_model(config: Any) -> Any:
    """A model of this configuration without storage."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()  # an encoder is no mistake here
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


# ---- methods ---------------------------------------------------------------------------------------------------------


def trained(model: Any, method: str, adapter: Mapping[str, Any], *, skills: int = 1) -> int:
    """How many parameters a method trains on a model, by its own settings, the router of CS-ReFT left out.

    skills: of CS-ReFT. UserError for layers and modules that the model has not got.
    """
    if method in ("reft", "csreft"):
        return (skills if method == "csreft" else 1) * edits(model.config, adapter)
    names = linear_modules(model, tuple(adapter["modules"]))
    if method == "svf":
        return components(model, in_layers(names, adapter.get("layers")))
    shapes = [model.get_submodule(name).weight.shape for name in names]
    if method == "ia3":
        into = [name.rpartition(".")[2] in adapter["feedforward"] for name in names]
        return sum(shape[1 if scaled else 0] for shape, scaled in zip(shapes, into, strict=True))
    if method == "tinylora":
        return adapter["size"] * max(1, round(len(names) * (1 - adapter["tying"])))
    pairs = sum(adapter["rank"] * sum(shape) for shape in shapes)
    return pairs + (sum(shape[0] for shape in shapes) if method == "dora" else 0)


def components(model: Any, names: Iterable[str]) -> int:
    """How many singular values some matrices have."""
    return sum(min(model.get_submodule(name).weight.shape) for name in names)


def edits(config: Any, adapter: Mapping[str, Any]) -> int:
    """Parameters of LoReFT's edits, or of one of CS-ReFT's subspaces. UserError for layers that are not there."""
    layers = range(config.num_hidden_layers)
    named = layers if adapter["layers"] == "all" else adapter["layers"]
    read = [adapter["router"]["layer"]] if "router" in adapter else []
    if beyond := [layer for layer in (*named, *read) if layer not in layers]:
        raise UserError(f"expected layers from 0 to {layers[-1]}, got {beyond[0]}; correct it")
    slots = 1 if adapter["tied"] else 2
    return len(named) * slots * (2 * adapter["rank"] * config.hidden_size + adapter["rank"])


def router(config: Any, skills: int) -> int:
    """Parameters of CS-ReFT's router."""
    inner = config.hidden_size // 2
    return (config.hidden_size + 1) * inner + (inner + 1) * skills


# ---- rows ------------------------------------------------------------------------------------------------------------


def rows_of(plan: Plan, base: str) -> dict[str, tuple[str, Item]]:
    """What trains each row on a base model: the section of the plan, and one of its items."""
    rows: dict[str, tuple[str, Item]] = {}
    for section in TRAINED:
        for item in plan[section].values():
            if item.get("base", BASE) == base:
                rows.setdefault(item["row"], (section, item))
    return rows


def counts(params: Mapping[str, Any], plan: Plan, base: str) -> tuple[list[Count], list[str]]:
    """What each row trains on a base model of the plan, the base model first; and what is wrong, a sentence each."""
    entry = of_base(params, base)
    model = meta_model(shape_of(entry))
    whole = model.num_parameters()
    found: dict[Count, list[str]] = {}  # to the rows that it is of
    wrong = []
    for row, (section, item) in rows_of(plan, base).items():
        method = item["method"]
        where = parts(params, row, method, "reinforce" if section in BY_REWARD else "next_token")["adapter"]
        adapter, skills = settings(params, where), len(set(item.get("data", ())))
        try:
            if method == "svf":
                _decomposed(params, adapter)
            ours = trained(model, method, adapter, skills=skills)
        except UserError as error:
            said = str(error).removeprefix("params.yaml: ")
            wrong.append(f"params.yaml: '{where}' does not fit {entry['name']}: {said}")
            continue
        head = ", its head aside" if section == "train_head" else ""
        share = f"{ours / whole:.4%} of the base{head}"
        line = Count(f"{described(method, adapter)}; {share}", ours, *stated(entry, method, adapter))
        found.setdefault(line, []).append(row)
        if method == "csreft":
            both = ours + router(model.config, skills)
            found.setdefault(Count(f"the same with its router; {both / whole:.4%} of the base", both), []).append(row)
    lines = [line._replace(what=f"{', '.join(rows)}: {line.what}") for line, rows in found.items()]
    return [Count("base model", whole), *lines], wrong


def _decomposed(params: Mapping[str, Any], adapter: Mapping[str, Any]) -> None:
    """A UserError where an expert scales matrices that are not decomposed."""
    known = settings(params, "svf.modules")
    if more := [name for name in adapter["modules"] if name not in known]:
        raise UserError(f"expected modules among {', '.join(known)}, those of 'svf', got {more[0]}; add it to 'svf'")


def described(method: str, adapter: Mapping[str, Any]) -> str:
    """A method and what it changes."""
    if "modules" in adapter:
        share = f", {adapter['layers']} of the layers" if adapter.get("layers") is not None else ""
        return f"{method} on {', '.join(adapter['modules'])}{share}"
    layers = adapter["layers"] if adapter["layers"] == "all" else len(adapter["layers"])
    return f"{adapter.get('formula', method)} of rank {adapter['rank']} in {layers} layers, {adapter['positions']}"


def stated(base: Mapping[str, Any], method: str, adapter: Mapping[str, Any]) -> tuple[str, str]:
    """What the papers say of a method on a base model, and why that differs from ours; empty where they say nothing."""
    repo = str(base.get("repo"))
    if repo == LLAMA3:
        return TABLE4.get((method, frozenset(adapter.get("modules", ()))), ("", ""))
    name = adapter.get("formula", method)
    share = SHARES.get(repo, {}).get(name)
    return (f"{share} %" if share else "", NOTES.get((repo, name), ""))


def of_base(params: Mapping[str, Any], base: str) -> Mapping[str, Any]:
    """A base model's entry in params.yaml; for one that is made of another, that of the other, under its name."""
    entry = settings(params, f"bases.{base}")
    if entry["source"] == "eyes":
        return {**of_base(params, str(entry["of"])), "name": entry["name"]}
    if entry["source"] != "merge":
        return entry
    return {**settings(params, f"bases.{BASE}"), "name": f"{lookup(params, f'bases.{BASE}.name')}, merged ({base})"}
