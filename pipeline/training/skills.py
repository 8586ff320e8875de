"""One adapter trained on one skill or on several together, by next-token prediction: what the stages for it share.

A skill is a task; its examples say so in their ``meta``. The examples of several skills are joined in the order given
and drawn from alike, so each skill is seen in proportion to its number of examples.

A method whose module has ``gates`` routes its data itself: its adapter has a subspace for each skill and a router that
opens them. It is told the skills' names, and of each example which skill it belongs to (``supervise``).
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from pipeline.core.artifacts import read_examples, write_jsonl
from pipeline.core.errors import UserError
from pipeline.core.progress import step
from pipeline.model.forward.adapters import Adapter, Attachment, Factors, method_module
from pipeline.model.forward.base import Base, Compute
from pipeline.training import supervised
from pipeline.training.loop import Data


class Trained(Adapter, supervised.Trainable, Protocol):
    """An adapter that can be trained, and that needs no factors."""

    def attached(self, model: nn.Module, factors: Factors | None) -> AbstractContextManager[Attachment]: ...


@dataclass(frozen=True)
class Skills(Data):
    """Examples of several skills. names: of the skills, in order."""

    names: tuple[str, ...]

    @property
    def labels(self) -> list[int]:
        """The skill of each example that is trained on, as a place in ``names``."""
        return [self.names.index(example.meta["task"]) for example in self.train]


def read_skills(train: Iterable[Path], validation: Iterable[Path], validation_examples: int | None) -> Skills:
    """The examples of some files, skills named in the order in which they first occur.

    validation_examples: how many of each validation file are used, from its start; None: all.
    """
    examples = [example for path in train for example in read_examples(path)]
    held_out = [example for path in validation for example in read_examples(path)[:validation_examples]]
    return Skills(examples, held_out, tuple(dict.fromkeys(example.meta["task"] for example in examples)))


def initial(base: Base, method: str, adapter: Mapping[str, Any], *, seed: int) -> Trained:
    """An untrained adapter of a method that treats all skills alike; a UserError for one that routes its data."""
    module = method_module(method, "Settings", "initial")
    if hasattr(module, "gates"):
        raise UserError(
            f"expected a method that makes the same edits for every prompt, got '{method}', which has a router; train "
            "it by train_csreft, or use reft"
        )
    return module.initial(base.model, module.Settings.parse(adapter, "adapter"), torch.Generator().manual_seed(seed))


def initial_routed(base: Base, method: str, adapter: Mapping[str, Any], *, skills: Skills, seed: int) -> Trained:
    """An untrained adapter of a method that routes its data itself, told of which skill each example is."""
    module = method_module(method, "Settings", "initial", "gates")
    settings, generator = module.Settings.parse(adapter, "adapter"), torch.Generator().manual_seed(seed)
    trained = module.initial(base.model, settings, skills.names, generator)
    trained.supervise(skills.labels)
    return trained


def read_gates(
    base: Base, adapter: Any, skills: Skills, *, method: str, compute: Compute, path: Path
) -> dict[str, int]:
    """Write the gates of the held-out prompts, a line each; what the provenance of a routed adapter says beside."""
    with step("read the gates"):
        prompts = [base.prompt_ids(example.messages) for example in skills.validation]
        opened = method_module(method, "gates").gates(adapter, base.model, prompts, compute.batch_tokens)
    gates, probabilities = (values.tolist() for values in opened)
    write_jsonl(
        path,
        (
            {"id": example.id, "skill": example.meta["task"], "gates": gate, "probabilities": probability}
            for example, gate, probability in zip(skills.validation, gates, probabilities, strict=True)
        ),
    )
    parameters = sum(parameter.numel() for parameter in adapter.parameters())
    return {"parameters_without_router": parameters - adapter.router_parameters}
