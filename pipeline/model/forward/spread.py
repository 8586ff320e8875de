"""A model that is larger than one GPU: its decoder layers lie on several, one block after the other.

The embeddings, the final norm and the head stay on the first one, where prompts begin and where states come back to, so
whoever calls the decoder sees one device. What is kept for a layer (keys and values, factors, an adapter's matrices)
lies where the layer is. One GPU computes at a time: this is for memory, not for speed; several processes
(``pipeline.core.processes``) are for that.

Splitting matrices instead of layers (tensor parallelism, FSDP2) would not do: SVF scales the singular values of whole
matrices, and its factors would have to be split, too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.core.errors import UserError


def blocks(layers: Sequence[int], rest: int, devices: int) -> list[int]:
    """The device of each decoder layer: contiguous blocks, of about as many bytes on each device.

    layers: bytes of each layer. rest: bytes of all else, which the first device holds. Every device gets a layer.
    Raises UserError where there are more devices than layers.
    """
    if devices > len(layers):
        raise UserError(
            f"params.yaml: expected compute.gpus to be at most {len(layers)}, the model's layers, got {devices}; "
            "lower it"
        )
    share = (rest + sum(layers)) / devices
    places, before, device = [], rest, 0
    for number, size in enumerate(layers):
        left = len(layers) - number
        full = before + size / 2 > share * (device + 1)  # more than half of it would lie beyond this device's share
        if number and device + 1 < devices and (full or left <= devices - device - 1):
            device += 1
        places.append(device)
        before += size
    return places


def bytes_of(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


class _Bringing:
    """A layer's arguments come to the device that the layer is on.

    Masks and position embeddings are the same objects for all layers of a pass: they are moved once a pass, by name.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._moved: dict[str, tuple[Any, Any]] = {}

    def __call__(self, layer: nn.Module, args: tuple, named: Mapping[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return tuple(moved(value, self.device) for value in args), {
            name: self._once(name, value) for name, value in named.items()
        }

    def _once(self, name: str, value: Any) -> Any:
        if name == "hidden_states":
            return moved(value, self.device)
        source, there = self._moved.get(name, (None, None))
        if source is not value:
            there = moved(value, self.device)
            self._moved[name] = value, there
        return there


def moved(value: Any, device: torch.device) -> Any:
    """A value with the tensors in it on a device; what is no tensor, tuple or list stays as it is."""
    if isinstance(value, Tensor):
        return value.to(device)
    return type(value)(moved(one, device) for one in value) if type(value) in (tuple, list) else value


def spread(model: nn.Module, stack: Any, devices: Sequence[torch.device]) -> None:
    """Move a model onto several devices, layer by layer. stack: its decoder, which has ``layers``."""
    layers = stack.layers
    sizes = [bytes_of(layer) for layer in layers]
    places = blocks(sizes, bytes_of(model) - sum(sizes), len(devices))
    bringing = [_Bringing(device) for device in devices]
    for layer, place in zip(layers, places, strict=True):
        layer.to(devices[place])
        layer.register_forward_pre_hook(bringing[place], with_kwargs=True)
    layers[-1].register_forward_hook(lambda layer, args, output: moved(output, devices[0]))
    stack.layers = nn.ModuleList()  # so that the layers stay where they are
    model.to(devices[0])
    stack.layers = layers
