"""Strategies by name: from ``expert:sums`` to what a row of the engine is computed with.

    base               the frozen model                     expert:NAME    one SVF expert
    prompt             the model itself names the category  lora:NAME      one LoRA expert
    classifier         the classification expert does       mixture:FILE   experts mixed as a file says
    loreft, csreft     edits of hidden states               expert:FOLDER  an exported expert

``mixture:`` takes the name of a mixture that the few-shot search found, its file, or a JSON file

    {"experts": {"sums": 0.7, "functions": 0.3}, "mix": "delta"}

where a coefficient may also be a list, one number per decoder layer, and ``mix`` may be left out (the project's).
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from pipeline.adaptation.dispatch import OTHERS, Dispatch, categories, predicted, question
from pipeline.core.artifacts import read_json
from pipeline.core.errors import UserError
from pipeline.core.types import Example, Mixture
from pipeline.methods.lora import Lora
from pipeline.methods.svf import Mixing, SvfAdapter, row_scaled, stack_experts
from pipeline.model.forward.adapters import Adapter, Attachment, Factors
from pipeline.model.forward.base import Base, decoder_layers
from pipeline.serving.engine import Decision, FirstPass, Strategy
from pipeline.serving.project import Project, nearest, read_exported
from pipeline.serving.rows import Way

LARGEST = 1000  # a coefficient beyond it is a mistake
# What a mixture is written as: the coefficient of each expert, or one per decoder layer.
Coefficients = Mapping[str, float | Sequence[float]]


class Strategies:
    """The strategies of one project; what they need is read once, when first asked for."""

    def __init__(self, project: Project, base: Base, factors: Factors) -> None:
        self.project, self.base, self.factors = project, base, factors
        self._mixing: Mixing = project.section(Mixing)
        self.named = cache(self._named)

    def names(self) -> list[str]:
        """What is there to be used now: strategies whose files a run has made."""
        project = self.project
        there: list[tuple[str, Path]] = [("base", project.model)]
        there += [(f"expert:{name}", path) for name, path in project.experts.items()]
        there += [(f"lora:{name}", path) for name, path in project.loras.items()]
        there += list(project.adapters.items())
        there += [("prompt", path) for path in [*project.experts.values()][:1]]
        there += [("classifier", project.classifier)]
        there += [(f"mixture:{name}", path) for name, path in project.mixtures.items()]
        return [name for name, path in there if path.exists()]

    def _named(self, name: str) -> Strategy:
        kind, _, rest = name.partition(":")
        if name == "base":
            return Way("base")
        if kind == "expert" and rest:
            if Path(rest).is_dir():
                return self.way(name, read_exported(Path(rest), self.project.model))
            full = self.project.expert(rest)
            return self.way(f"expert:{full}", self._expert(full))
        if kind == "lora" and rest:
            full = self.project.lora(rest)
            return self.way(f"lora:{full}", self.project.read(self.project.loras[full])[0])
        if name in self.project.adapters:
            return self.way(name, self.project.read(self.project.adapters[name])[0])
        if kind == "mixture" and rest:
            return self._mixture(name, rest)
        if name in ("prompt", "classifier"):
            return self._first_pass(name)
        known = ["base", "expert:NAME", "lora:NAME", *self.project.adapters, "prompt", "classifier", "mixture:FILE"]
        raise nearest("a strategy", name, known)

    def _expert(self, full: str) -> SvfAdapter:
        return self.project.read_svf(self.project.experts[full])

    def way(self, name: str, adapter: Adapter) -> Way:
        """An adapter, whatever its kind, as the way of a row."""
        if isinstance(adapter, SvfAdapter):
            if adapter.mixture.axis == "prompt":
                raise UserError(
                    f"expected one mixture for every prompt in {name}, got one each for the prompts of a test; name a "
                    "mixture that the few-shot search found"
                )
            self.project.check_svf(name, adapter)
            return Way(name, z={module: adapter.z(module)[0] for module in adapter.experts})
        if isinstance(adapter, Lora):
            self.project.check_lora(name, adapter, self.base.model)
            return Way(name, lora=adapter)
        return Way(name, edits=adapter)

    def _mixture(self, name: str, rest: str) -> Way:
        path = self.project.mixtures.get(rest, Path(rest))
        if path.suffix == ".safetensors":
            return self.way(name, self.project.read_svf(path))
        if path.suffix != ".json":
            raise nearest("a mixture's name, or a file that ends in .safetensors or .json", rest, self.project.mixtures)
        value = read_json(path)
        if not isinstance(value, dict) or not isinstance(value.get("experts"), dict) or set(value) - {"experts", "mix"}:
            raise UserError(
                f'expected {{"experts": {{name: coefficient, …}}, "mix": "paper" or "delta"}} in {path}, got '
                f"{json.dumps(value)[:80]}; correct it"
            )
        return self.mixture(value["experts"], value.get("mix"), name=name)

    def mixture(self, coefficients: Coefficients, mix: Any = None, name: str = "mixture") -> Way:
        """Experts mixed by the coefficients given."""
        mix = self._mixing.mix if mix is None else mix
        if mix not in ("paper", "delta"):
            raise UserError(f"expected mix to be 'paper' or 'delta', got {mix!r}; correct it")
        if not coefficients:
            raise UserError("expected the coefficient of one expert at least, got none; name an expert")
        layers = len(decoder_layers(self.base.model))
        columns: dict[str, list[float]] = {}
        for expert, value in coefficients.items():
            columns[self.project.expert(str(expert))] = _column(str(expert), value, layers)
        if len(columns) < len(coefficients):
            raise UserError(f"expected each expert once, got {', '.join(coefficients)}; name each once")
        stacked = stack_experts([self._expert(full) for full in columns], list(columns), mix)
        rows = tuple(zip(*columns.values(), strict=True))
        found = Mixture(tuple(columns), "layer", rows, cast(Literal["paper", "delta"], mix))
        return self.way(name, stacked.mixed_by(found))

    def _first_pass(self, name: str) -> FirstPass:
        """Name each prompt's category, all in one batch, then take its domain's expert; of ``others``, the base."""
        settings: Dispatch = self.project.section(Dispatch)
        compute = self.project.compute()
        ways: dict[str, Way] = {OTHERS: Way("base")}
        for domain, expert in self.project.domains.items():
            ways[domain] = self.way(f"expert:{expert}", self._expert(expert))
        z: dict[str, Tensor] = {}
        if name == "classifier":
            found = self.project.read_svf(self.project.classifier)
            z = {module: found.z(module) for module in found.experts}

        def decide(base: Base, chats: Sequence[Sequence]) -> list[tuple[Way, Decision]]:
            started = time.monotonic()
            examples = [Example(id="", messages=tuple(messages), target="") for messages in chats]
            rows = {module: vector.expand(len(chats), -1) for module, vector in z.items()}
            with row_scaled(base.model, self.factors, rows) if z else nullcontext(Attachment()) as attachment:
                found = categories(base, examples, attachment, settings=settings, compute=compute)
            seconds = time.monotonic() - started
            answers = sum(len(base.answer_ids(answer)) for answer in settings.names.values())
            decided = []
            for example, values in zip(examples, found, strict=True):
                chosen = predicted(values)
                shares = torch.tensor([*values.values()]).softmax(0).tolist()
                decision = Decision(
                    chosen=f"{chosen} → {ways[chosen].name}",
                    weights=dict(zip(values, shares, strict=True)),
                    tokens=len(base.prompt_ids(question(example, settings, "").messages)) + answers,
                    seconds=seconds,
                )
                decided.append((ways[chosen], decision))
            return decided

        return decide


def _column(expert: str, value: Any, layers: int) -> list[float]:
    """An expert's coefficient in every layer, checked."""
    column = list(value) if isinstance(value, list | tuple) else [value] * layers
    if len(column) != layers:
        raise UserError(
            f"expected one coefficient of '{expert}', or one for each of {layers} layers, got {len(column)}"
        )
    numbers = [float(one) for one in column if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(numbers) < layers or not all(math.isfinite(one) and abs(one) <= LARGEST for one in numbers):
        raise UserError(
            f"expected coefficients of '{expert}' from -{LARGEST} to {LARGEST}, got {str(value)[:60]}; correct them"
        )
    return numbers
