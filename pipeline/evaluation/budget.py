"""What a profile would train, hold and generate, from shapes alone: no weights are read.

Parameters are counted on a model of the base's shape on the meta device, by what each method trains:

    SVF       Σ min(out, in) over the targeted matrices, of the targeted layers
    LoRA      Σ rank · (out + in)
    DoRA      that + Σ out
    (IA)³     Σ out, or in where it scales what a matrix takes
    TinyLoRA  size · (vectors, as many as tying leaves of the matrices)
    LoReFT    edits · (2 · rank · hidden + rank); an edit per layer, and per prefix and suffix where they are not tied
    CS-ReFT   skills · that; its router hidden → hidden / 2 → skills is counted beside

and compared with what the papers state (``PAPERS``). Counts that differ say why.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.core.config import lookup, read_params
from pipeline.core.errors import UserError
from pipeline.methods.svf import Targets, in_layers
from pipeline.model.forward.base import layer_of, linear_modules

SHAPES = Path(__file__).parents[2] / "data/published/shapes.yaml"
GIB = 1 << 30
MLP = ("gate_proj", "up_proj", "down_proj")
LLAMA3, LLAMA2, LLAMA = "meta-llama/Meta-Llama-3-8B-Instruct", "meta-llama/Llama-2-7b-hf", "huggyllama/llama-7b"


class Count(NamedTuple):
    """what: the method and what it scales. ours: parameters. paper: as printed. note: why they differ."""

    what: str
    ours: int
    paper: str = ""
    note: str = ""


def shape_of(base: Mapping[str, Any]) -> Mapping[str, Any]:
    """The shape of a base model of params.yaml. UserError where it is not known."""
    if "layers" in base:  # one that is initialised
        return {
            "hidden": base["hidden_size"],
            "intermediate": base["intermediate_size"],
            "vocabulary": base["vocabulary"],
            "tied": True,
            **{key: base[key] for key in ("layers", "heads", "key_value_heads")},
        }
    known = yaml.safe_load(SHAPES.read_text(encoding="utf-8"))
    name = base.get("repo") or base.get("requirement") or base.get("path")
    if name not in known:
        raise UserError(f"expected the shape of {name} in {SHAPES.name}, which has {', '.join(known)}; add it there")
    return known[name]


def meta_model(shape: Mapping[str, Any]) -> Any:
    """A Llama of this shape without storage."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=shape["hidden"],
        intermediate_size=shape["intermediate"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["key_value_heads"],
        vocab_size=shape["vocabulary"],
        tie_word_embeddings=shape["tied"],
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def scaled(model: Any, targets: Targets) -> list[str]:
    """Names of the matrices that an expert scales."""
    return in_layers(linear_modules(model, targets.modules), targets.layers)


def components(model: Any, names: Iterable[str]) -> int:
    """How many singular values some matrices have."""
    return sum(min(model.get_submodule(name).weight.shape) for name in names)


def svf(model: Any, modules: tuple[str, ...]) -> int:
    return components(model, linear_modules(model, modules))


def lora(model: Any, modules: tuple[str, ...], rank: int) -> int:
    return sum(rank * sum(model.get_submodule(name).weight.shape) for name in linear_modules(model, modules))


def dora(model: Any, modules: tuple[str, ...], rank: int) -> int:
    return lora(model, modules, rank) + sum(
        model.get_submodule(name).weight.shape[0] for name in linear_modules(model, modules)
    )


def ia3(model: Any, modules: tuple[str, ...], feedforward: tuple[str, ...]) -> int:
    return sum(
        model.get_submodule(name).weight.shape[1 if name.rpartition(".")[2] in feedforward else 0]
        for name in linear_modules(model, modules)
    )


def tinylora(model: Any, modules: tuple[str, ...], size: int, tying: float) -> int:
    return size * max(1, round(len(linear_modules(model, modules)) * (1 - tying)))


def one_task(model: Any, method: str, adapter: Mapping[str, Any]) -> int:
    """What a method that is trained on one task trains, by its own settings."""
    modules = tuple(adapter["modules"])
    if method == "svf":
        return svf(model, modules)
    if method == "ia3":
        return ia3(model, modules, tuple(adapter["feedforward"]))
    if method == "tinylora":
        return tinylora(model, modules, adapter["size"], adapter["tying"])
    return {"lora": lora, "dora": dora}[method](model, modules, adapter["rank"])


def variants(params: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """What else than SVF experts, LoRA and LoReFT a profile trains on one task: its name, its method and settings."""
    known = ("lora", "reft")  # which are counted by their sections
    methods = dict.fromkeys(entry["method"] for entry in params["baselines"].values() if entry["method"] not in known)
    found = {method: (method, params[method]["adapter"]) for method in methods}
    for entries in params.get("ablations", {}).values():
        found |= {name: (entry["method"], entry["adapter"]) for name, entry in entries.items()}
    return found


def reft(shape: Mapping[str, Any], settings: Mapping[str, Any], skills: int = 1) -> int:
    layers = shape["layers"] if settings["layers"] == "all" else len(settings["layers"])
    edits = layers * (1 if settings["tied"] else 2)
    return skills * edits * (2 * settings["rank"] * shape["hidden"] + settings["rank"])


def router(shape: Mapping[str, Any], skills: int) -> int:
    inner = shape["hidden"] // 2
    return (shape["hidden"] + 1) * inner + (inner + 1) * skills


def counts(params: Mapping[str, Any], base: Mapping[str, Any]) -> list[Count]:
    """What each method of a profile trains."""
    shape = shape_of(base)
    model = meta_model(shape)
    repo = base.get("repo")
    whole = model.num_parameters()
    targets = Targets.parse(params["svf"], "svf")
    names = scaled(model, targets)
    layers = len({layer_of(name) for name in names})
    where = "" if targets.layers is None else f", {layers} of {shape['layers']} layers"
    skills = len(params["trained"])
    loreft, csreft = reft(shape, params["reft"]["adapter"]), reft(shape, params["csreft"]["adapter"], skills)
    found = [
        Count("base model", whole),
        Count(f"SVF on {', '.join(targets.modules)}{where}", components(model, names)),
        Count(
            f"LoRA on {', '.join(params['lora']['adapter']['modules'])}",
            lora(model, tuple(params["lora"]["adapter"]["modules"]), params["lora"]["adapter"]["rank"]),
            "6.82 M" if repo == LLAMA3 else "",
        ),
        *(
            Count(f"{name}: {method} on {', '.join(adapter['modules'])}", one_task(model, method, adapter))
            for name, (method, adapter) in variants(params).items()
        ),
        Count(
            f"LoReFT, {loreft / whole:.4%} of the base",
            loreft,
            {LLAMA: "0.031 %", LLAMA2: "0.0039 %"}.get(str(repo), ""),
        ),
        Count(
            f"CS-ReFT without router, {csreft / whole:.4%}",
            csreft,
            "0.0098 %" if repo == LLAMA2 else "",
            "the paper's rank and layers are not stated; the router cannot be in its count" if repo == LLAMA2 else "",
        ),
        Count(
            f"CS-ReFT with its router, {(csreft + router(shape, skills)) / whole:.4%}", csreft + router(shape, skills)
        ),
    ]
    return found + (ablation(model) if repo == LLAMA3 else [])


def ablation(model: Any) -> list[Count]:
    """The parameter counts of Transformer²'s Table 4."""
    attention = ("q_proj", "v_proj")
    which = "the paper's attention is q and v, as its LoRA's"
    return [
        Count("Table 4: SVF on the MLP", svf(model, MLP), "0.39 M"),
        Count("Table 4: SVF on attention (q, v)", svf(model, attention), "0.16 M", which),
        Count("SVF on attention (q, k, v, o)", svf(model, (*attention, "k_proj", "o_proj")), "", "not in the paper"),
        Count(
            "Table 4: SVF on both",
            svf(model, (*MLP, *attention)),
            "0.58 M",
            "the paper's own rows add up to 0.55 M; no choice of whole matrices gives 0.58",
        ),
        Count("Table 4: LoRA on attention (q, v)", lora(model, attention, 16), "6.82 M"),
        Count("Table 4: LoRA on both", lora(model, (*MLP, *attention), 16), "35.13 M"),
    ]


def memory_bytes(params: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, int]:
    """The largest things held at once, activations aside. Factors and cache are held in float32."""
    shape = shape_of(base)
    model = meta_model(shape)
    names = scaled(model, Targets.parse(params["svf"], "svf"))
    matrices = [model.get_submodule(name).weight.shape for name in names]
    size = 2 if params["compute"]["dtype"] == "bfloat16" else 4
    values = 2 * shape["layers"] * shape["key_value_heads"] * shape["hidden"] // shape["heads"]  # of a token
    return {
        "weights": model.num_parameters() * size,
        "factors of SVF": sum(4 * min(out, into) * (out + into + 1) for out, into in matrices),
        "key-value cache": params["compute"]["cache_tokens"] * values * 4,
    }


def generated_tokens(params: Mapping[str, Any]) -> dict[str, int | None]:
    """The most tokens each part of a run may generate; None where a size is 'all'."""
    tasks, search = params["tasks"], params["few_shot"]

    def longest(task: str) -> int:
        return lookup(params, f"tasks.{task}.decoding.max_new_tokens")

    def rollouts(training: Mapping[str, Any]) -> int:
        validations = training["steps"] // training["validate_every"] + 1
        answers = training["steps"] * training["prompts"] * training["samples"]
        return len(training["kl_coefficients"]) * (answers + validations * training["validation_prompts"])

    def tried(entry: Mapping[str, Any]) -> int:
        sweep = entry.get("sweep")
        return len(sweep["learning_rates"]) * len(sweep["clips"]) if sweep else 1

    rewarded = params.get("ablations", {}).get("policy_gradient", {}).values()
    candidates = len(search["configurations"]) * search["generations"] * search["population"]
    sizes = {task: tested(entry["data"]) for task, entry in tasks.items()}
    cells = [cell["task"] for cell in params["cells"].values()]
    return {
        "train_svf": sum(rollouts(params["reinforce"]) * longest(one["task"]) for one in params["experts"].values()),
        "train_policy": sum(tried(one) * rollouts(one["training"]) * longest(one["task"]) for one in rewarded),
        "adapt": sum(candidates * search["shots"] * longest(entry["task"]) for entry in params["adaptations"].values()),
        "generate": None
        if any(sizes[task] == "all" for task in cells)
        else sum(sizes[task] * longest(task) for task in cells),
    }


def tested(data: Mapping[str, Any]) -> Any:
    """How many test examples a task has, or ``all``, as its settings say."""
    size = data["test"]
    return size["each"] * len(data["options"]["subsets"]) if isinstance(size, Mapping) else size


def sources(params: Mapping[str, Any]) -> list[str]:
    """What is wrong with the sources of a profile's models and benchmarks, a sentence each; nothing is downloaded."""
    import importlib

    from pipeline.data.bases import Source
    from pipeline.data.tables import available

    found = []
    for name, entry in params["bases"]["downloaded"].items():
        source = Source.parse(entry, f"bases.downloaded.{name}")
        if len(getattr(source, "revision", "0" * 40)) != 40:
            found.append(f"params.yaml: expected 'bases.downloaded.{name}.revision' to be a commit; pin it")
    for task, entry in params["tasks"].items():
        module = importlib.import_module(f"pipeline.tasks.{task}")
        options = module.Options.parse(entry["data"]["options"], f"tasks.{task}.data.options")
        tables = getattr(module, "TABLES", {})
        for name in sorted(module.needed(options) if hasattr(module, "needed") else tables):
            try:
                available(f"the table '{name}' of {task}", tables[name])
            except UserError as error:
                found.append(str(error))
    return found


def report(path: Path) -> tuple[list[str], list[str]]:
    """Lines for a person, and what is wrong, of the profile ``path``, whose settings are known to fit."""
    params = read_params(path)
    wrong = sources(params)
    lines = []
    for base in [*params["bases"]["downloaded"].values(), *params["bases"]["initialised"].values()]:
        try:
            lines.append(f"{base['name']}: parameters")
            for what, ours, paper, note in counts(params, base):
                printed = f"   paper: {paper}" if paper else ""
                lines.append(f"  {ours:>15,}  {what}{printed}{f' ({note})' if note else ''}")
            lines.append("memory, GiB, activations aside")
            lines += [f"  {size / GIB:>15.2f}  {what}" for what, size in memory_bytes(params, base).items()]
        except UserError as error:
            wrong.append(str(error))
    lines.append("tokens generated, at most")
    for what, tokens in generated_tokens(params).items():
        lines.append(f"  {'all test prompts' if tokens is None else f'{tokens:,}':>15}  {what}")
    return lines, wrong
