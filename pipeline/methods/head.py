"""A classification head over another adapter: what GLUE is done with (arXiv 2404.03592, section 4.4).

    logits = A h + c,  A (labels, hidden), c (labels,)

h (hidden,) is a final hidden state of a prompt in the frozen, edited model: that of the last token for a decoder, that
of the first token for an encoder such as RoBERTa (``pipeline.training.reading``). Head and edits are trained together
and saved as one file. The head has labels · (hidden + 1) parameters.

**Deviations**
1. The head is one linear layer that starts at zero. RoBERTa's own has a hidden layer with a tanh and a dropout before
   it. The edits are what is compared, so the head is as small as it can be.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import BoolTensor, LongTensor, Tensor, nn
from torch.nn import functional

from pipeline.model.forward.adapters import Attachment, Factors, method_module


class Inner(Protocol):
    """The adapter below the head: an ``Adapter`` that can be trained."""

    kind: str

    def config(self) -> dict[str, Any]: ...

    def state(self) -> dict[str, Tensor]: ...

    def parameters(self) -> Iterable[nn.Parameter]: ...

    def load_state(self, tensors: dict[str, Tensor]) -> None: ...

    def attached(self, model: nn.Module, factors: Factors | None) -> AbstractContextManager[Attachment]: ...

    def learning(self, model: nn.Module) -> AbstractContextManager[Attachment]: ...

    def retract(self) -> None: ...

    def extra_loss(self) -> Tensor | None: ...


class Head(nn.Module):
    """(..., hidden) of any type to logits (..., labels) in float32."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden.float(), self.weight, self.bias)


class Headed:
    """A head and the adapter below it.

    labels: what the logits are of, in order. read: which token's hidden state the head reads, ``last`` or ``first``.
    """

    kind = "head"

    def __init__(self, inner: Inner, head: Head, labels: Iterable[str], read: str) -> None:
        self.inner, self.head, self.labels, self.read = inner, head, tuple(labels), read

    def config(self) -> dict[str, Any]:
        inner = {"kind": self.inner.kind, "config": self.inner.config()}
        return {"labels": list(self.labels), "read": self.read, "inner": inner}

    def state(self) -> dict[str, Tensor]:
        own = {f"head.{name}": parameter.detach() for name, parameter in self.head.named_parameters()}
        return own | {f"inner.{name}": tensor for name, tensor in self.inner.state().items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.inner.load_state(_within(tensors, "inner."))
        self.head.load_state_dict(_within(tensors, "head."))

    def parameters(self) -> Iterable[nn.Parameter]:
        return [*self.inner.parameters(), *self.head.parameters()]

    def retract(self) -> None:
        self.inner.retract()

    def extra_loss(self) -> Tensor | None:
        return self.inner.extra_loss()

    @contextmanager
    def attached(self, model: nn.Module, factors: Factors | None) -> Iterator[Attachment]:
        """Attach the adapter below to ``model``; the head reads the hidden states that come out."""
        self.head.to(next(model.parameters()).device)
        with self.inner.attached(model, factors) as attachment:
            yield attachment if self.read == "last" else _Whole(attachment)

    @contextmanager
    def learning(self, model: nn.Module) -> Iterator[Attachment]:
        """As ``attached``, for training.

        model: the base as this head reads it (``pipeline.training.reading``), with the base itself in ``frozen``.
        """
        frozen = model.get_submodule("frozen")
        self.head.to(next(frozen.parameters()).device)
        with self.inner.learning(frozen) as attachment:
            yield attachment if self.read == "last" else _Whole(attachment)


class _Whole(Attachment):
    """Attached to an encoder, whose first token sees the last: no beginning of a prompt can be shared."""

    def __init__(self, inner: Attachment) -> None:
        self._inner = inner

    def begin(self, rows: LongTensor, prompt_mask: BoolTensor | None) -> None:
        self._inner.begin(rows, prompt_mask)

    def alike(self, rows: LongTensor) -> None:
        return None


def initial(inner: Inner, width: int, labels: Iterable[str], read: str) -> Headed:
    """An untrained head, all zero, over ``inner``. width: the size of a hidden state."""
    labels = tuple(labels)
    return Headed(inner, Head(torch.zeros(len(labels), width), torch.zeros(len(labels))), labels, read)


def from_state(config: dict[str, Any], tensors: dict[str, Tensor]) -> Headed:
    below = method_module(config["inner"]["kind"], "from_state", where="the adapter below a head")
    inner = below.from_state(config["inner"]["config"], _within(tensors, "inner."))
    return Headed(inner, Head(**_within(tensors, "head.")), config["labels"], config["read"])


def _within(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, under their names without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
