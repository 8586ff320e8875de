"""A project as after a run, made in a moment: a random model and random adapters of every kind, far from the base.

Answers differ between the adapters, which those of a short training on the profile tiny hardly do.
"""

import shutil
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from pipeline.core.artifacts import write_tensors
from pipeline.core.types import Mixture
from pipeline.flow import plan
from pipeline.methods import csreft, lora, reft
from pipeline.methods.svf import SvfAdapter, decompose, single
from pipeline.model.forward.adapters import save_adapter
from pipeline.model.forward.base import linear_modules
from pipeline.serving.project import Project
from stages.initialise import Initialised, chat_tokenizer, random_model
from tests.tiny import MODULES

ROOT = Path(__file__).resolve().parents[1]
TEXT = "What is 12 + 30? Write a function. Who is the oldest? Anna, Ben or Carl. def f(x): return x"
# How many of twenty prompts some cells answer right.
RIGHT = {"sums-base": 4, "sums-svf-0": 10, "sums-lora-0": 8, "groceries-base": 2, "groceries-few_shot-0": 15}
RIGHT |= {"groceries-best_lora-0": 5}


def make_project(folder: Path) -> Project:
    """Artifacts of the profile tiny in ``folder``, which is made."""
    folder.mkdir(parents=True)
    shutil.copyfile(ROOT / "pipeline/profiles/tiny.yaml", folder / "params.yaml")
    plan.update(folder / "params.yaml", folder / "plan.yaml")
    project = Project(folder)
    shape = Initialised.read(project.params, {"name": "base"})
    tokenizer = chat_tokenizer([TEXT] * 20, shape.vocabulary)
    model = random_model(shape, tokenizer).eval().requires_grad_(False)
    draw = torch.Generator().manual_seed(0)
    for parameter in model.parameters():  # large enough for greedy choices not to be ties
        parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.15 if parameter.dim() > 1 else parameter)
    model.save_pretrained(project.model)
    tokenizer.save_pretrained(project.model)

    factors: dict[str, Tensor] = {}
    for name in linear_modules(model, MODULES):
        u, sigma, vt = decompose(model.get_submodule(name).weight)
        factors |= {f"{name}.u": u, f"{name}.sigma": sigma, f"{name}.vt": vt}
    write_tensors(project.factors.path, factors, {})

    def z() -> dict[str, Tensor]:
        return {
            name.removesuffix(".sigma"): 1 + 0.5 * torch.randn(len(sigma), generator=draw)
            for name, sigma in factors.items()
            if name.endswith(".sigma")
        }

    def provenance(method: str, task: str) -> dict:
        return {"method": method, "task": task, "seed": 0, "base": "base", "parameters": 3, "steps": 2}

    for name, path in project.experts.items():
        save_adapter(path, single(z(), name), provenance("svf", name.split("-")[1]))
    save_adapter(project.classifier, single(z(), "classifier"), provenance("svf", "classification"))
    names = tuple(project.domains.values())
    for name, path in project.mixtures.items():
        layers = tuple(tuple(torch.randn(len(names), generator=draw).tolist()) for _ in model.model.layers)
        vectors = {module: torch.stack([vector, 2 - vector, vector.flip(0)]) for module, vector in z().items()}
        mixed = {"experts": names, "alpha": layers, "configuration": "per-layer"}
        found = provenance("few_shot", name.split("-")[1]) | mixed
        save_adapter(path, SvfAdapter(vectors, Mixture(names, "layer", layers, "delta")), found)
    for name, path in project.loras.items():
        made = lora.initial(model, lora.Settings(rank=4, alpha=8, dropout=0.0, modules=("q_proj", "up_proj")), draw)
        made.load_state({key: tensor.normal_(0, 0.2, generator=draw) for key, tensor in made.state().items()})
        selected = {"method": "select", "experts": ["lora-sums-0", "lora-functions-0"], "alpha": [[0.0, 1.0]]}
        made_by = provenance("lora", name.split("-")[1])
        save_adapter(path, made, made_by | selected if name.startswith("best") else made_by)
    for name, path in project.adapters.items():
        kind = csreft if name.startswith("csreft") else reft
        settings = project.section(kind.Settings).model_copy(update={"initial": "random"})
        skills = [list(project.domains)] if kind is csreft else []
        edits = kind.initial(model, settings, *skills, draw)
        tensors = {key: tensor.clone() for key, tensor in edits.state().items()}
        tensors["bias"] = torch.randn(tensors["bias"].shape, generator=draw) * 5
        save_adapter(path, kind.from_state(edits.config(), tensors), provenance(kind.__name__, "all"))
    return project


def score_cells(project: Project) -> None:
    """Scores of some cells, as the stage ``score`` writes them."""
    for cell, right in RIGHT.items():
        path = project.artifact(f"scores/{cell}", ".parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"correct": [number < right for number in range(20)]}).to_parquet(path)
