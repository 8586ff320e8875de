"""What a project's folder holds for use, by name: its experts, adapters and mixtures.

``plan.yaml`` says what a run makes, and an artifact's name is its file's: ``svf-sums-0`` is the expert of the row
``svf`` for the task ``sums``, trained with seed 0. Wherever a name is asked for, the row may be left out where the
kind says it, and the seed, which is then the first one: ``expert:sums`` is ``expert:svf-sums-0``. Names are all that is
known here; whoever only asks for them waits for no library of tensors.
"""

import contextlib
import difflib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.core.artifacts import read_provenance
from pipeline.core.config import lookup, read_params, read_plan
from pipeline.core.errors import UserError

BASE = "base"  # the base model that is served; experts of others are there to be compared


def nearest(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The sentence for a name that is not known."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"there is: {', '.join(known) or 'none'}"
    return UserError(f"expected {kind}, got '{name[:80]}'; {hint}")


class Names:
    """A folder with ``params.yaml``, ``plan.yaml`` and what a run of them has made.

    experts, loras, adapters, mixtures: name → file, of single SVF experts; of LoRA experts; of what edits hidden states
    and was trained on all skills together; of what a search on few-shot prompts found. A file may not have been made
    yet. Other baselines and the variants of an ablation are there to be compared, and not served.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        remedies = {"params.yaml": "go to the project's folder, or name it by --project"}
        remedies["plan.yaml"] = "run 'selfadapt plan' there"
        for name, remedy in remedies.items():
            if not (folder / name).is_file():
                raise UserError(f"expected {name} in {folder.resolve()}, which has none; {remedy}")
        self.params = read_params(folder / "params.yaml")
        self.plan = read_plan(folder / "plan.yaml")
        self.seed = int(lookup(self.params, "seeds")[0])
        try:
            self._name_what_is_planned()
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(
                f"expected {folder / 'plan.yaml'} as 'selfadapt plan' writes it, got another ({error!r}); run it again"
            ) from None

    def _name_what_is_planned(self) -> None:
        self.experts = self._paths(self._items("train_svf"))
        self.loras = self._paths(item for item in self._items("train_supervised") if item["row"] == "lora")
        together = [*self._items("train_skills"), *self._items("train_csreft")]
        self.adapters = self._paths(item for item in together if set(item["data"]) == set(self.skills.values()))
        adapted = self._items("adapt")
        self.loras |= self._paths(item for item in adapted if item["method"] == "lora")
        self.mixtures = self._paths(item for item in adapted if item["method"] == "svf")

    def _items(self, section: str) -> list[Mapping[str, Any]]:
        """What a section of the plan makes for the base model."""
        return [item for item in self.plan.get(section, {}).values() if item["base"] == BASE]

    def _paths(self, items: Iterable[Mapping[str, Any]]) -> dict[str, Path]:
        paths = [self.artifact(item["adapter"]) for item in items]
        return {path.stem: path for path in paths}

    @property
    def artifacts(self) -> dict[str, Path]:
        """strategy → file, of all that is one file: experts, adapters of hidden states, and mixtures."""
        kinds = (("expert:", self.experts), ("lora:", self.loras), ("", self.adapters), ("mixture:", self.mixtures))
        return {f"{kind}{name}": path for kind, paths in kinds for name, path in paths.items()}

    def artifact(self, place: str, suffix: str = ".safetensors") -> Path:
        """The file of an artifact that the plan names."""
        return self.folder / "artifacts" / f"{place}{suffix}"

    def provenance(self, path: Path) -> dict[str, Any]:
        """How an adapter in a file came about."""
        about = read_provenance(path)
        if not isinstance(about.get("provenance"), dict):
            raise UserError(
                f"expected an adapter in {path}, got a safetensors file that does not say how it came about; remove it "
                "and run its stage again"
            )
        return dict(about["provenance"])

    @property
    def model(self) -> Path:
        """The base model's folder."""
        return self.artifact(f"{BASE}/model", suffix="")

    @property
    def classifier(self) -> Path | None:
        """The classification expert of the first seed; None where the plan has none."""
        made = [item["adapter"] for item in self._items("fit_classifier") if item["seed"] == self.seed]
        return self.artifact(made[0]) if made else None

    @cached_property
    def skills(self) -> dict[str, str]:
        """domain → its first task that is trained."""
        first: dict[str, str] = {}
        for task, settings in lookup(self.params, "tasks").items():
            if settings["role"] == "trained":
                first.setdefault(settings["data"]["domain"], task)
        return first

    @property
    def domains(self) -> dict[str, str]:
        """domain → the expert that a first pass can choose for it."""
        return {domain: self.expert(task) for domain, task in self.skills.items()}

    def full(self, name: str) -> str:
        """The whole name of a strategy: ``expert:svf-sums-0`` for ``expert:sums`` or ``sums``, ``csreft-0`` for
        ``csreft``. Raises UserError where the plan has no such strategy.
        """
        kind, _, rest = name.partition(":")
        if kind == "expert" and rest:
            return f"expert:{self.expert(rest)}"
        if kind == "lora" and rest:
            return f"lora:{self.lora(rest)}"
        for whole in (name, f"{name}-{self.seed}"):
            if whole in ("base", "prompt", "classifier", *self.artifacts):
                return whole
        if not rest:
            with contextlib.suppress(UserError):
                return f"expert:{self.expert(name)}"
        known = ["base", "expert:NAME", "lora:NAME", *self.adapters, "prompt", "classifier", "mixture:FILE"]
        raise nearest("a strategy", name, known)

    def file_of(self, strategy: str) -> Path:
        """The file of an expert, an adapter or a mixture."""
        full = self.full(strategy)
        if full not in self.artifacts:
            raise UserError(
                f"expected an expert, an adapter or a mixture, got '{strategy}'; 'selfadapt experts list' names them"
            )
        return self.artifacts[full]

    def expert(self, name: str) -> str:
        """The whole name of an SVF expert: ``svf-sums-0`` for itself, ``sums-0``, and ``sums`` with the first seed."""
        return self._whole("the name of an expert (svf)", name, self.experts, row="svf")

    def lora(self, name: str) -> str:
        """The whole name of a LoRA expert, likewise."""
        return self._whole("the name of an expert (lora)", name, self.loras, row="lora")

    def _whole(self, kind: str, name: str, known: Mapping[str, Path], row: str) -> str:
        for whole in (name, f"{name}-{self.seed}", f"{row}-{name}", f"{row}-{name}-{self.seed}"):
            if whole in known:
                return whole
        raise nearest(kind, name, known)
