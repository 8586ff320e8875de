"""Strategies by name: from ``expert:sums`` to what a row of the engine is computed with.

    base               the frozen model                     expert:NAME    one SVF expert
    prompt             the model itself names the category  lora:NAME      one LoRA expert
    classifier         the classification expert does       mixture:FILE   experts mixed as a file says
    loreft, csreft     edits of hidden states               expert:FOLDER  an exported expert

``mixture:`` takes the name of a mixture that a search on few-shot prompts found, its file, or a JSON file

    {"experts": {"sums": 0.7, "functions": 0.3}, "mix": "delta"}

where a coefficient may also be a list, one number per decoder layer, and ``mix`` may be left out (the project's).
Under ``paper``, z' = Σ α z, coefficients have to sum to 1: with another sum every singular value is scaled by about
that sum, and the answers are noise. Under ``delta``, z' = 1 + Σ α (z − 1), any sum means something.
"""

import json
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
from pipeline.methods.csreft import CsReft
from pipeline.methods.lora import Lora
from pipeline.methods.svf import Mixing, SvfAdapter, row_scaled, stack_experts
from pipeline.model.forward.adapters import Adapter, Attachment, Factors
from pipeline.model.forward.base import Base, decoder_layers
from pipeline.serving.exported import read_exported
from pipeline.serving.forms import ALONE, Form
from pipeline.serving.jobs import Decision, FirstPass, Strategy
from pipeline.serving.names import nearest
from pipeline.serving.project import Project
from pipeline.serving.rows import Way
from pipeline.serving.skills import by_skill

LARGEST = 1000  # a coefficient beyond it is a mistake
ROUNDED = 0.02  # how far from 1 a sum of coefficients may be that were rounded
# What a mixture is written as: the coefficient of each expert, or one per decoder layer.
Coefficients = Mapping[str, float | Sequence[float]]


class Strategies:
    """The strategies of one project; what they need is read once, when first asked for."""

    def __init__(self, project: Project, base: Base, factors: Factors) -> None:
        self.project, self.base, self.factors = project, base, factors
        self._mixing: Mixing = project.section(Mixing)
        self._known, self._from_file = cache(self._read), cache(self._read_file)

    def names(self) -> list[str]:
        """What is there to be used now: strategies whose files a run has made."""
        project = self.project
        chosen = [project.experts.get(f"svf-{task}-{project.seed}") for task in project.skills.values()]
        needed: dict[str, list[Path | None]] = {
            "base": [project.model],
            "prompt": [*chosen] if chosen else [None],
            "classifier": [*chosen, project.classifier],
            **{name: [path] for name, path in project.artifacts.items()},
        }
        return [name for name, paths in needed.items() if all(path and path.exists() for path in paths)]

    def named(self, name: str) -> Strategy:
        """The strategy of a name. A file or folder is looked for where nothing that the plan makes is called so."""
        try:
            full = self.project.full(name)
        except UserError:
            kind, _, rest = name.partition(":")
            if rest and (kind == "mixture" or (kind == "expert" and Path(rest).is_dir())):
                return self._from_file(name)
            raise
        return self._known(full)

    def _read(self, full: str) -> Strategy:
        project = self.project
        if full == "base":
            return Way(full)
        if full in ("prompt", "classifier"):
            return self._first_pass(full)
        adapter, provenance = project.read(project.artifacts[full])
        return self._asked(full, adapter, project.forms(provenance))

    def _read_file(self, name: str) -> Strategy:
        kind, _, rest = name.partition(":")
        if kind == "expert":
            return self._asked(name, *read_exported(Path(rest), self.project.model))
        return self._mixture_file(name, Path(rest))

    def _expert(self, full: str) -> SvfAdapter:
        return self.project.read_svf(self.project.experts[full])

    def _asked(self, name: str, adapter: Adapter, forms: Sequence[Form]) -> Strategy:
        """An adapter, asked in the form of its task. Of several, CS-ReFT's router picks one for each question."""
        if len(forms) == 1:
            return self.way(name, adapter, forms[0])
        if isinstance(adapter, CsReft) and adapter.router["input"] != "none" and len(forms) == adapter.skills:
            ways = [self.way(name, adapter, form) for form in forms]
            if any(forms):
                return by_skill(adapter, ways, self.project.compute().batch_tokens)
        return self.way(name, adapter)

    def way(self, name: str, adapter: Adapter, form: Form = ALONE) -> Way:
        """An adapter, whatever its kind, as the way of a row. form: what it was trained in."""
        if isinstance(adapter, SvfAdapter):
            if adapter.mixture.axis == "prompt":
                raise UserError(
                    f"expected one mixture for every prompt in {name}, got one each for the prompts of a test; name a "
                    "mixture that the few-shot search found"
                )
            self.project.check_svf(name, adapter)
            return Way(name, z={module: adapter.z(module)[0] for module in adapter.experts}, form=form)
        if isinstance(adapter, Lora):
            self.project.check_lora(name, adapter, self.base.model)
            return Way(name, lora=adapter, form=form)
        self.project.check_edits(name, adapter, self.base.model)
        return Way(name, edits=adapter, form=form)

    def _mixture_file(self, name: str, path: Path) -> Way:
        if path.suffix == ".safetensors":
            return self.way(name, self.project.read_svf(path))
        if path.suffix != ".json":
            known = self.project.mixtures
            raise nearest("a mixture's name, or a file that ends in .safetensors or .json", str(path), known)
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
        rows = tuple(zip(*columns.values(), strict=True))
        if mix == "paper":
            _check_sums(rows)
        stacked = stack_experts([self._expert(full) for full in columns], list(columns), mix)
        mixed = Mixture(tuple(columns), "layer", rows, cast(Literal["paper", "delta"], mix))
        return self.way(name, stacked.mixed_by(mixed))

    def _first_pass(self, name: str) -> FirstPass:
        """Name each prompt's category, all in one batch, then take its domain's expert; of ``others``, the base."""
        settings: Dispatch = self.project.section(Dispatch)
        ways: dict[str, Way] = {OTHERS: Way("base")}
        for domain, expert in self.project.domains.items():
            ways[domain] = cast(Way, self._known(f"expert:{expert}"))
        z: dict[str, Tensor] = {}
        if name == "classifier":
            if self.project.classifier is None:
                raise UserError(
                    "expected a classification expert in plan.yaml, which has none; plan a row that asks it"
                )
            classifier = self.project.read_svf(self.project.classifier)
            z = {module: classifier.z(module) for module in classifier.experts}

        def decide(base: Base, chats: Sequence[Sequence]) -> list[tuple[Way, Decision]]:
            started = time.monotonic()
            likelihoods = self._likelihoods(base, chats, settings, z)
            seconds = time.monotonic() - started
            answers = sum(len(base.answer_ids(answer)) for answer in settings.names.values())
            decided = []
            for messages, of_categories in zip(chats, likelihoods, strict=True):
                chosen = predicted(of_categories)
                shares = torch.tensor([*of_categories.values()]).softmax(0).tolist()
                asked = base.prompt_ids(question(_example(messages), settings, "").messages)
                decision = Decision(
                    chosen=f"{chosen} → {ways[chosen].name}",
                    weights=dict(zip(of_categories, shares, strict=True)),
                    tokens=len(asked) + answers,
                    seconds=seconds,
                )
                decided.append((ways[chosen], decision))
            return decided

        return decide

    def _likelihoods(
        self, base: Base, chats: Sequence[Sequence], settings: Dispatch, z: Mapping[str, Tensor]
    ) -> list[dict[str, float]]:
        """category → its log-likelihood, for each chat. z: of the expert that is asked; empty: the base model is."""
        rows = {module: vector.expand(len(chats), -1) for module, vector in z.items()}
        with row_scaled(base.model, self.factors, rows) if z else nullcontext(Attachment()) as attachment:
            examples = [_example(messages) for messages in chats]
            return categories(base, examples, attachment, settings=settings, compute=self.project.compute())


def _example(messages: Sequence) -> Example:
    return Example(id="", messages=tuple(messages), target="")


def _column(expert: str, value: Any, layers: int) -> list[float]:
    """An expert's coefficient in every layer, checked."""
    column = list(value) if isinstance(value, list | tuple) else [value] * layers
    if len(column) != layers:
        raise UserError(
            f"expected one coefficient of '{expert}', or one for each of {layers} layers, got {len(column)}; correct "
            "them"
        )
    numbers = [number for number in column if isinstance(number, int | float) and not isinstance(number, bool)]
    if len(numbers) < layers or not all(abs(number) <= LARGEST for number in numbers):  # which no NaN is
        raise UserError(
            f"expected coefficients of '{expert}' from -{LARGEST} to {LARGEST}, got {str(value)[:60]}; correct them"
        )
    return [float(number) for number in numbers]


def _check_sums(rows: Sequence[Sequence[float]]) -> None:
    """Whether the coefficients of every layer sum to 1, or are all 0, which means the base model."""
    for layer, row in enumerate(rows):
        if any(row) and abs(sum(row) - 1) > ROUNDED:
            raise UserError(
                f"expected coefficients that sum to 1, as mix 'paper' needs, got a sum of {sum(row):.3g} in layer "
                f"{layer}; correct them, or mix by 'delta'"
            )
