"""GPUs that a CPU pretends to have: real values, and an error wherever CUDA would raise one.

Every tensor stays on the CPU. Which of them "are on a GPU" is noted by storage, so that views follow. Two modes of
PyTorch do the rest. One stands before every function of ``torch`` that Python calls: it answers ``.device``, moves by
``.to``, and notes what is made with ``device=``. The other sees every operator, those of the backward pass too: it
raises where tensors of two devices meet, and notes where its result is. Both count what makes a program slow on a real
GPU: a *synchronisation*, where the CPU waits for a value, and a *transfer* between devices.

What it can't know: which operators have no CUDA kernel, or no deterministic one.
"""

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
LOOSE = torch.device("meta")  # made by autograd from sizes alone: belongs wherever it is first used
MAKES = "arange as_tensor empty empty_like eye full full_like linspace normal ones ones_like rand rand_like randint "
MAKES += "randn randn_like randperm scalar_tensor tensor tril_indices zeros zeros_like"
FACTORIES = {getattr(torch, name) for name in MAKES.split()}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
WAITS = {"_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "unique_consecutive", "masked_select", "equal"}


class Mismatch(RuntimeError):
    """What CUDA would have raised."""


class Pretended:
    """Where every tensor is. syncs, transfers: how many of each there were, by the line of the project."""

    def __init__(self) -> None:
        self.syncs: Counter[str] = Counter()
        self.transfers: Counter[str] = Counter()
        self._placed: dict[int, tuple[StorageWeakRef, torch.device]] = {}

    def place(self, tensor: Tensor) -> torch.device:
        if tensor.layout != torch.strided:
            return CPU
        reference, device = self._placed.get(tensor.untyped_storage()._cdata, (None, CPU))
        return CPU if reference is None or reference.expired() else device

    def put(self, tensor: Any, device: torch.device) -> Any:
        if isinstance(tensor, Tensor) and tensor.layout == torch.strided:
            storage = tensor.untyped_storage()
            if device == CPU:
                self._placed.pop(storage._cdata, None)
            else:
                self._placed[storage._cdata] = StorageWeakRef(storage), device
        if len(self._placed) > 50_000:
            self._placed = {key: kept for key, kept in self._placed.items() if not kept[0].expired()}
        return tensor

    def moved(self, tensor: Tensor, device: torch.device) -> Tensor:
        if self.place(tensor) == device:
            return tensor
        self.transfers[line()] += 1
        return _Move.apply(tensor, device, self)

    def wait(self) -> None:
        self.syncs[line()] += 1


class _Move(torch.autograd.Function):
    """A copy on another device, through which the gradient comes back to the first."""

    @staticmethod
    def forward(ctx, tensor: Tensor, device: torch.device, where: Pretended) -> Tensor:
        ctx.where, ctx.back = where, where.place(tensor)
        return where.put(tensor.detach().clone(), device)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return ctx.where.put(gradient.clone(), ctx.back), None, None


def line() -> str:
    """The innermost line of the project that runs."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ("pipeline", "stages"):
            return f"{path.relative_to(ROOT)}:{frame.lineno}"
    return "elsewhere"


def device_of(value: Any) -> torch.device:
    device = torch.device("cuda", value) if isinstance(value, int) else torch.device(value)
    return torch.device("cuda", 0) if device.type == "cuda" and device.index is None else device


class _Operators(TorchDispatchMode):
    """Sees every operator."""

    def __init__(self, where: Pretended, called: "_Functions") -> None:
        super().__init__()
        self.where, self.called = where, called

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        where, name = self.where, operator._schema.name
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        if not tensors:
            made = operator(*args, **kwargs)
            return made if self.called.making else where.put(made, LOOSE)
        if name.startswith("aten::_foreach_"):
            return self._each(operator, args, kwargs)
        device = self._device(name, args, tensors)
        if device != CPU and name.removeprefix("aten::") in WAITS:
            where.wait()
        result = operator(*args, **kwargs)
        if device != CPU:
            for value in tree_leaves(result):
                if isinstance(value, Tensor) and where.place(value) in (CPU, LOOSE):
                    where.put(value, device)
        return result

    def _each(self, operator, args: Any, kwargs: dict[str, Any]) -> Any:
        """An operator over lists of tensors, which torch takes one by one where they are on several devices."""
        made = operator(*args, **kwargs)
        for before, after in zip(args[0], made or (), strict=bool(made)):
            self.where.put(after, self.where.place(before))
        return made

    def _device(self, name: str, args: Any, tensors: list[Tensor]) -> torch.device:
        """Where an operator runs. Raises Mismatch where it cannot."""
        place = self.where.place
        known = [place(tensor) for tensor in tensors if place(tensor) != LOOSE]
        home = next((device for device in known if device != CPU), CPU)
        for tensor in tensors:
            if place(tensor) == LOOSE:
                self.where.put(tensor, home)
        if name in ("aten::copy_", "aten::_to_copy", "aten::set_"):
            if len(set(known)) > 1:
                self.where.transfers[line()] += 1
            return place(args[0])
        if name in INDEXING:
            own = place(args[0])
            for index in args[1]:
                if isinstance(index, Tensor):
                    if place(index) not in (own, CPU):
                        raise Mismatch(f"{name}: indices on {place(index)} of a tensor on {own}, at {line()}")
                    if own != CPU and (index.dtype == torch.bool or place(index) == CPU):
                        self.where.wait()
            if len(args) > 2 and args[2].dim() and place(args[2]) != own:
                raise Mismatch(f"{name}: values on {place(args[2])} for a tensor on {own}, at {line()}")
            return own
        full = {place(tensor) for tensor in tensors if tensor.dim()}
        single = {place(tensor) for tensor in tensors if not tensor.dim()} - {CPU}
        if len(full) > 1 or (full and single - full):
            raise Mismatch(f"{name}: tensors on {', '.join(sorted(map(str, full | single)))}, at {line()}")
        device = next(iter(full | single), CPU)
        if device != CPU and "mkldnn" in name:
            raise Mismatch(f"{name}: a kernel of the CPU for a tensor on {device}, at {line()}")
        return device


class _Functions(TorchFunctionMode):
    """Stands before every function of torch. making: how deep in a factory that Python called."""

    def __init__(self, where: Pretended) -> None:
        super().__init__()
        self.where, self.making = where, 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, place = dict(kwargs or {}), self.where.place
        getters = {
            Tensor.device.__get__: lambda device: device,
            Tensor.is_cuda.__get__: lambda device: device != CPU,
            Tensor.is_cpu.__get__: lambda device: device == CPU,
            Tensor.get_device: lambda device: -1 if device == CPU else device.index,
        }
        if function in getters:
            return getters[function](place(args[0]))
        if function is Tensor.to:
            return self._to(*args, **kwargs)
        if function in (Tensor.cpu, Tensor.cuda):
            return self.where.moved(args[0], CPU if function is Tensor.cpu else device_of("cuda"))
        if function in (Tensor.numpy, Tensor.__array__) and place(args[0]) != CPU:
            raise Mismatch(f"numpy of a tensor on {place(args[0])}, at {line()}")
        if function is Tensor.tolist and place(args[0]) != CPU:
            self.where.wait()
        name = getattr(function, "__name__", "")
        if function in FACTORIES or name.startswith("new_"):
            return self._make(function, args, kwargs)
        if name == "tensor_split" and any(isinstance(part, Tensor) and place(part) != CPU for part in args[1:]):
            raise Mismatch(f"tensor_split at places on a GPU, at {line()}")
        return function(*args, **kwargs)

    def _make(self, function, args: Any, kwargs: dict[str, Any]) -> Tensor:
        asked = kwargs.pop("device", None)
        like = next((value for value in args if isinstance(value, Tensor)), None)
        if asked is None and like is not None and function is not torch.as_tensor and function is not torch.tensor:
            return function(*args, **kwargs)  # on the device of its argument
        self.making += 1
        try:
            made = function(*args, **kwargs)
        finally:
            self.making -= 1
        if asked is None:
            return made
        device, generator = device_of(asked), kwargs.get("generator")
        if generator is not None and generator.device.type != device.type:
            raise Mismatch(f"{function.__name__} on {device} by a generator on {generator.device}, at {line()}")
        shared = any(
            isinstance(value, Tensor) and value.untyped_storage()._cdata == made.untyped_storage()._cdata
            for value in args
        )
        return self.where.moved(made, device) if shared else self.where.put(made, device)

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        device, dtype = kwargs.get("device"), kwargs.get("dtype")
        for value in (*args, kwargs.get("other")):
            if isinstance(value, Tensor):
                device, dtype = self.where.place(value), value.dtype
            elif isinstance(value, torch.dtype):
                dtype = value
            elif isinstance(value, (str, torch.device)) or type(value) is int:
                device = value
        if dtype is not None and dtype != tensor.dtype:
            tensor = Tensor.to(tensor, dtype)
        if device is not None:
            tensor = self.where.moved(tensor, device_of(device))
        return tensor.clone() if kwargs.get("copy") else tensor


@contextlib.contextmanager
def pretending() -> Iterator[Pretended]:
    """The block is run on a machine with GPUs."""
    where = Pretended()
    functions = _Functions(where)
    with _Operators(where, functions), functions:
        yield where
