"""One adapter trained on one skill or on several together, by next-token prediction: what the stages for it share.

A skill is a task; its examples say so in their ``meta``. Where several are trained together their examples are joined
in the order given and drawn from alike, so each skill is seen in proportion to how many examples it has.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.adapters import Adapter, Attachment, save_trained
from pipeline.core.artifacts import read_examples, write_jsonl
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import Section
from pipeline.core.models import Base, Compute
from pipeline.core.types import Example
from pipeline.training import supervised


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
    adapter: Adapter,
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
    """Write what the training came to; its metrics. more: what the provenance says beside, ``parameters`` among it."""
    provenance = {"method": method, "tasks": list(skills.names), "seed": seed, "base": model.parent.name, **more}
    return save_trained(adapter, rows, path=path, curve=curve, provenance=provenance)


def write_gates(path: Path, asked: Sequence[Example], gates: Sequence[Any], probabilities: Sequence[Any]) -> None:
    """The gates of held-out prompts, one line a prompt; none where the adapter has no gates."""
    write_jsonl(
        path,
        (
            {"id": example.id, "skill": example.meta["task"], "gates": gate, "probabilities": probability}
            for example, gate, probability in zip(asked, gates, probabilities, strict=True)
        ),
    )
