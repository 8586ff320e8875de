"""The base model itself, as an adapter that changes nothing.

With it the unadapted model passes through generating, scoring and dispatching like everything trained, and
nothing downstream has a special case for it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from pipeline.model.forward.adapters import Attachment, Factors


class Unadapted:
    """The base model: no settings, no tensors, no change."""

    kind = "base"

    def config(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {}

    @contextmanager
    def attached(self, model: nn.Module, factors: Factors) -> Iterator[Attachment]:
        yield Attachment()


def from_state(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Unadapted:
    return Unadapted()


def provenance(name: str, base_parameters: int) -> dict[str, Any]:
    """The provenance of an unadapted model: it has no task, no seed and no trained parameter.

    name: of the model. base_parameters: how many parameters it has, tied ones counted once; the trained parameters of
        adapters are compared with them.
    """
    return {
        "method": "base",
        "tasks": [],
        "seed": None,
        "base": name,
        "parameters": 0,
        "base_parameters": base_parameters,
    }
