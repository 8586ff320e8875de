"""What a project's folder holds for use: its model, experts, adapters and mixtures, by name.

No path is spelled here: ``dvc.yaml`` says which stage writes what, and an artifact's name is its file's. ``Project``
resolves the graph once under the folder's own settings and reads artifacts when they are asked for.
"""

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.core.artifacts import digest, read_json, read_tensors
from pipeline.core.config import Section, lookup, read_params
from pipeline.core.errors import UserError
from pipeline.flow.stages import Stage, resolve
from pipeline.methods.lora import Lora
from pipeline.methods.svf import Mixing, SvfAdapter
from pipeline.model.forward.adapters import Adapter, Factors, load_adapter, method_module
from pipeline.model.forward.base import Compute, layer_of


def nearest(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The sentence for a name that is not known."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"there is: {', '.join(known) or 'none'}"
    return UserError(f"expected {kind}, got '{name}'; {hint}")


def intact(path: Path, adapter: Adapter) -> Adapter:
    """The adapter read from ``path``, if all its numbers are numbers."""
    for name, tensor in adapter.state().items():
        if not bool(tensor.isfinite().all()):
            raise UserError(f"expected finite numbers in {path}, got NaN or infinity in '{name}'; train it again")
    return adapter


class Project:
    """A folder with ``dvc.yaml``, ``params.yaml`` and what a run of them has made.

    experts, loras, adapters, mixtures: name → file, of single SVF experts; of LoRA; of what edits hidden states
    (``loreft``, ``csreft``); of what the few-shot search found. A file may not have been made yet. Other baselines and
    the ablation's variants are there to be compared, and not served.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("dvc.yaml", "params.yaml"):
            if not (folder / name).is_file():
                raise UserError(
                    f"expected {name} in {folder.resolve()}, which has none; go to the project's folder, or name it "
                    "by --project"
                )
        self.params = read_params(folder / "params.yaml")
        self.stages: list[Stage] = resolve(folder / "params.yaml", folder / "dvc.yaml")
        self.experts = self._written("train_svf", "expert")
        baselines = self._written("train_baseline", "expert")
        loras = [stage for stage in self._all("train_baseline") if stage.arguments["method"] == ["lora"]]
        self.loras = {path.stem: path for path in (self._path(stage, "expert") for stage in loras)}
        self.adapters = self._written("train_reft", "adapter") | self._written("train_csreft", "adapter")
        self.mixtures: dict[str, Path] = {}
        for stage in self._all("adapt"):
            path, experts = self._path(stage, "adapted"), set(self._paths(stage, "experts"))
            if experts <= set(self.loras.values()):  # what was chosen among LoRA experts is a LoRA expert
                self.loras[path.stem] = path
            elif not experts <= set(baselines.values()):
                self.mixtures[path.stem] = path

    def _all(self, module: str) -> list[Stage]:
        # By the entry: what the same module does to another base model is of no use here.
        return [stage for stage in self.stages if stage.entry == module]

    def _one(self, module: str) -> Stage:
        found = self._all(module)
        if not found:
            raise UserError(f"expected a stage {module} in {self.folder / 'dvc.yaml'}, which has none")
        return found[0]

    def _paths(self, stage: Stage, argument: str) -> list[Path]:
        return [self.folder / path for path in stage.arguments[argument]]

    def _path(self, stage: Stage, argument: str) -> Path:
        return self._paths(stage, argument)[0]

    def _written(self, module: str, argument: str) -> dict[str, Path]:
        paths = [self._path(stage, argument) for stage in self._all(module)]
        return {path.stem: path for path in paths}

    def section(self, kind: type[Section]) -> Any:
        """A section of the project's settings."""
        return kind.parse(lookup(self.params, kind.at), kind.at)

    @property
    def model(self) -> Path:
        """The base model's folder."""
        return self._path(self._one("factorize"), "model")

    @cached_property
    def factors(self) -> Factors:
        return Factors(self._path(self._one("factorize"), "factors"))

    @property
    def classifier(self) -> Path:
        """The classification expert."""
        return self._path(self._one("fit_classifier"), "expert")

    @property
    def domains(self) -> dict[str, str]:
        """The expert of each domain that a first pass can choose."""
        experts = [path.stem for path in self._paths(self._one("dispatch"), "experts")]
        return dict(zip(lookup(self.params, "trained"), experts, strict=True))

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """The report's numbers, or nothing where no report was made."""
        path = self._path(self._one("report"), "metrics")
        return read_json(path) if path.is_file() else {}

    def compute(self) -> Compute:
        """How to compute answers: as the settings say, but in float32 on a CPU.

        There, float32 is no slower, and an answer then does not depend on who else is in the batch: in bfloat16 a
        product over another number of rows rounds differently, and greedy decoding takes another path.
        """
        compute = self.section(Compute)
        return compute.model_copy(update={"dtype": "float32"}) if compute.device == "cpu" else compute

    def expert(self, name: str) -> str:
        """The full name of an SVF expert: ``svf-sums-0`` for itself, ``sums-0``, and ``sums`` with the mixing seed."""
        return self._full("svf", name, self.experts)

    def lora(self, name: str) -> str:
        """The full name of a LoRA expert, likewise."""
        return self._full("lora", name, self.loras)

    def _full(self, method: str, name: str, known: Mapping[str, Path]) -> str:
        seed = self.section(Mixing).seed
        for full in (name, f"{method}-{name}", f"{method}-{name}-{seed}"):
            if full in known:
                return full
        raise nearest(f"the name of an expert ({method})", name, known)

    def read(self, path: Path) -> tuple[Adapter, dict[str, Any]]:
        """An adapter and its provenance."""
        if not path.is_file():
            raise UserError(f"expected the file {path}, which is not there; run 'dvc repro', which makes it")
        try:
            adapter, provenance = load_adapter(path)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"expected an adapter in {path}, got a file that lacks some of it ({error!r}); remove it and run its "
                "stage again"
            ) from None
        return intact(path, adapter), provenance

    def read_svf(self, path: Path) -> SvfAdapter:
        """SVF experts and how they are mixed."""
        adapter, _ = self.read(path)
        if not isinstance(adapter, SvfAdapter):
            raise UserError(
                f"expected SVF experts in {path}, got an adapter of kind '{adapter.kind}'; name another file"
            )
        self.check_svf(str(path), adapter)
        return adapter

    def check_svf(self, name: str, adapter: SvfAdapter) -> None:
        """Whether experts fit this base model: one scale for each singular value, a mixture for each layer."""
        for module, z in adapter.experts.items():
            rank = len(self.factors[module][1])
            if z.dim() != 2 or z.shape[1] != rank:
                raise UserError(
                    f"expected {rank} scales for '{module}' in {name}, got {list(z.shape)}; the expert belongs to "
                    "another base model"
                )
        depth = 1 + max(layer_of(module) for module in adapter.experts)
        if adapter.mixture.axis == "layer" and len(adapter.mixture.coefficients) < depth:
            raise UserError(
                f"expected coefficients for {depth} layers in {name}, got {len(adapter.mixture.coefficients)}; the "
                "mixture belongs to another base model"
            )

    def check_lora(self, name: str, adapter: Lora, model: nn.Module) -> None:
        """Whether the low-rank sums fit this base model."""
        weights = {module: part.weight for module, part in model.named_modules() if isinstance(part, nn.Linear)}
        for module, (a, b) in adapter.pairs.items():
            if module not in weights or (b.shape[0], a.shape[1]) != tuple(weights[module].shape):
                raise UserError(
                    f"expected a matrix '{module}' of {b.shape[0]} × {a.shape[1]} in the base model, for {name}; it "
                    "belongs to another base model"
                )


# ---- exported experts: see ``pipeline.serving.export`` -----------------------------------------------------------

WEIGHTS, CONFIG = "expert.safetensors", "config.json"


def base_digest(model: Path) -> str:
    """What tells one base model from another: a hash of its weights."""
    return hashlib.sha256("".join(digest(path) for path in sorted(model.glob("*.safetensors"))).encode()).hexdigest()


def read_exported(folder: Path, model: Path) -> Adapter:
    """The expert that an exported folder holds, if it was trained for the base model in ``model``."""
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or not {"kind", "config", "base_sha256"} <= set(config):
        raise UserError(f"expected an exported expert in {folder}, got another config.json; export it again")
    if config["base_sha256"] != base_digest(model):
        raise UserError(f"expected an expert for the base model in {model}, got one for another in {folder}")
    path = folder / WEIGHTS
    tensors, _ = read_tensors(path)
    try:
        adapter = method_module(config["kind"], "from_state", where=str(path)).from_state(config["config"], tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"expected an expert of kind '{config['kind']}' in {path}, got other tensors ({error!r}); export it again"
        ) from None
    return intact(path, adapter)
