"""One adapter trained on one skill or on several together, by next-token prediction: what the stages for it share.

A skill is a task; its examples say so in their ``meta``. Where several are trained together their examples are joined
in the order given and drawn from alike, so each skill is seen in proportion to how many examples it has.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from pipeline.core.artifacts import read_examples, write_jsonl
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import Section
from pipeline.core.progress import step
from pipeline.core.types import Example
from pipeline.model.forward.adapters import Adapter, Attachment, save_trained
from pipeline.model.forward.base import Base, Compute
from pipeline.training import supervised

# An adapter with a router, a model, prompts as token ids and the most tokens at once: gates and probabilities,
# (prompts, skills) each.
Gates = Callable[[Any, nn.Module, Sequence[Sequence[int]], int], tuple[Tensor, Tensor]]


class Trained(Adapter, supervised.Trainable, Protocol):
    """An adapter that was trained here."""


class Routed(Trained, Protocol):
    """One with a router."""

    @property
    def router_parameters(self) -> int: ...


class Recipe(Section, at="recipes.{recipe}"):
    """How an adapter of ``train_skills`` is made and trained. adapter: settings of its method, checked by that."""

    adapter: dict[str, Any]
    training: supervised.Training


@dataclass(frozen=True)
class Skills:
    """Examples to train on and held-out ones, of the skills ``names``, in the order in which they first occur."""

    names: tuple[str, ...]
    examples: Sequence[Example]
    held_out: Sequence[Example]

    @property
    def labels(self) -> list[int]:
        """The skill of each example, as a place in ``names``."""
        return [self.names.index(example.meta["task"]) for example in self.examples]


def read_skills(train: Iterable[Path], validation: Iterable[Path], validation_examples: int) -> Skills:
    """The examples of some files; of each validation file the first ``validation_examples``."""
    examples = [example for path in train for example in read_examples(path)]
    held_out = [example for path in validation for example in read_examples(path)[:validation_examples]]
    return Skills(tuple(dict.fromkeys(example.meta["task"] for example in examples)), examples, held_out)


def read_tasks(examples: Path, tasks: Sequence[str], validation_examples: int) -> Skills:
    """The same of some tasks, whose splits stand in the folder ``examples``."""
    train, validation = ([examples / task / f"{split}.jsonl" for task in tasks] for split in ("train", "validation"))
    return read_skills(train, validation, validation_examples)


def fit(
    base: Base,
    adapter: supervised.Trainable,
    skills: Skills,
    *,
    training: supervised.Training,
    compute: Compute,
    seed: int,
    checkpoints: Checkpoints,
    validate: Callable[[Attachment], float] | None = None,
) -> list[dict[str, Any]]:
    """Train ``adapter`` in place on all skills together; the curve. validate: as ``supervised.train`` takes it."""
    return supervised.train(
        base,
        adapter,
        examples=skills.examples,
        validation=skills.held_out,
        training=training,
        batch_tokens=compute.batch_tokens,
        seed=seed,
        checkpoints=checkpoints,
        validate=validate,
    )


def save(
    adapter: Trained,
    rows: Sequence[Mapping[str, Any]],
    skills: Skills,
    *,
    method: str,
    seed: int,
    model: Path,
    path: Path,
    curve: Path,
    **more: Any,
) -> dict[str, Any]:
    """Write what the training came to; its metrics. more: what the provenance says beside."""
    provenance = {
        "method": method,
        "tasks": list(skills.names),
        "seed": seed,
        "base": model.parent.name,
        "parameters": sum(parameter.numel() for parameter in adapter.parameters()),
        **more,
    }
    return save_trained(adapter, rows, path=path, curve=curve, provenance=provenance)


def read_gates(
    base: Base, adapter: Routed, skills: Skills, *, gates_of: Gates, compute: Compute, path: Path
) -> dict[str, int]:
    """Write the gates of the held-out prompts; what the provenance of an adapter with a router says beside."""
    with step("read the gates"):
        prompts = [base.prompt_ids(example.messages) for example in skills.held_out]
        gates, probabilities = gates_of(adapter, base.model, prompts, compute.batch_tokens)
    write_gates(path, skills.held_out, gates.tolist(), probabilities.tolist())
    parameters = sum(parameter.numel() for parameter in adapter.parameters())
    return {"parameters_without_router": parameters - adapter.router_parameters}


def write_gates(path: Path, asked: Sequence[Example], gates: Sequence[Any], probabilities: Sequence[Any]) -> None:
    """The gates of held-out prompts, one line a prompt; none where the adapter has no gates."""
    write_jsonl(
        path,
        (
            {"id": example.id, "skill": example.meta["task"], "gates": gate, "probabilities": probability}
            for example, gate, probability in zip(asked, gates, probabilities, strict=True)
        ),
    )
