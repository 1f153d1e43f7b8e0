"""A device that computes on the CPU but, as a GPU does, refuses tensors of another device.

torch calls it `cuda`, so that code takes the same branches as on a GPU: what a machine without one can find out. Not
seen are speed, memory, kernels and their rounding, streams, and what C++ code alone decides by the device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map

NAME = "pretend"
"""The name that torch's core knows the device by."""
CUDA = torch.device("cuda", 0)
aten = torch.ops.aten

MIXES = (aten.copy_.default, aten.index.Tensor, aten.index_put_.default, aten.index_put.default,
         aten._index_put_impl_.default, aten._to_copy.default)  # fmt: skip
"""Operations that take tensors of two devices: copies, and indices from the CPU."""

reads: Counter[str] = Counter()
"""Times that a value came back to the CPU, by operation: on a GPU the program waits for the device each time."""


class DeviceMixError(RuntimeError):
    """Tensors of two devices in one operation."""


class Pretend(torch.Tensor):
    """A tensor of the device; `elem` has its values."""

    elem: torch.Tensor
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, elem: torch.Tensor) -> Pretend:
        made = torch.Tensor._make_wrapper_subclass(
            cls, elem.size(), strides=elem.stride(), storage_offset=elem.storage_offset(), dtype=elem.dtype,
            layout=elem.layout, device=torch.device(NAME, 0), requires_grad=False,
        )  # fmt: skip
        made.elem = elem
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Pretend({self.elem!r})"

    def __deepcopy__(self, memo: Any) -> Any:
        copied = Pretend(self.elem.detach().clone())
        return (
            torch.nn.Parameter(copied, self.requires_grad)
            if getattr(self, "_is_param", False)
            else copied
        )

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs an operation on the values, after a check of the devices."""
    own: list[torch.Tensor] = []
    other: list[torch.Tensor] = []

    def look(x: Any) -> Any:
        if isinstance(x, Pretend):
            own.append(x)
            return x.elem
        if isinstance(x, torch.Tensor) and x.device.type == "cpu":
            other.append(x)
        return x

    plain_args, plain_kwargs = tree_map(look, args), tree_map(look, kwargs)
    asked = plain_kwargs.get("device")
    if asked is not None:
        plain_kwargs["device"] = torch.device("cpu")
        here = torch.device(asked).type in (NAME, "cuda")
    else:
        here = bool(own)
    if own and func not in MIXES and any(x.dim() for x in other):
        raise DeviceMixError(
            f"{func}: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
        )
    if func in (aten.index_put_.default, aten.index_put.default, aten.index.Tensor):
        alike = [plain_args[0], *plain_args[2:3]]
        kinds = {isinstance(x, Pretend) for x in [args[0], *args[2:3]] if x.dim()}
        if len(kinds) > 1 or (kinds == {False} and own):
            raise DeviceMixError(
                f"{func}: {alike[0].shape} and its values or indices are on two devices"
            )
    if func is aten.copy_.default and not isinstance(args[0], Pretend):
        here = False
    if own and (func is aten._local_scalar_dense.default or not here):
        reads[str(func)] += 1
    out = func(*plain_args, **plain_kwargs)
    if func is aten._to_copy.default and not here and own and out is own[0]:
        out = out.clone()

    def wrap(x: Any) -> Any:
        return (
            Pretend(x) if here and isinstance(x, torch.Tensor) and not isinstance(x, Pretend) else x
        )

    found = tree_map(wrap, out)
    return return_and_correct_aliasing(func, args, kwargs, found) if own else found


class _Factories(TorchDispatchMode):
    """Makes new tensors on the device, and copies those of the CPU to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        asked = (kwargs or {}).get("device")
        if asked is not None and torch.device(asked).type in (NAME, "cuda"):
            return compute(func, args, kwargs)
        return func(*args, **(kwargs or {}))


class _Names(TorchFunctionMode):
    """Replaces `cuda` by the name that torch's core knows."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def rename(x: Any) -> Any:
            if isinstance(x, torch.device) and x.type == "cuda":
                return torch.device(NAME, 0)
            return x

        kwargs = dict(kwargs or {})
        if isinstance(kwargs.get("device"), str) and kwargs["device"].startswith("cuda"):
            kwargs["device"] = torch.device(NAME, 0)
        if getattr(func, "__name__", "") == "to" and len(args) > 1 and isinstance(args[1], str):
            args = (args[0], torch.device(args[1]), *args[2:])
        if getattr(func, "__name__", "") == "cuda":
            func, args = torch.Tensor.to, (args[0], torch.device(NAME, 0))
        args, kwargs = tree_map(rename, args), tree_map(rename, kwargs)
        if getattr(func, "__name__", "") == "tolist" and isinstance(args[0], Pretend):
            return args[0].cpu().tolist()
        if getattr(func, "__name__", "") in (
            "__getitem__",
            "__setitem__",
        ):  # lists become tensors in C++
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            made = [torch.tensor(x) if isinstance(x, list) else x for x in index]
            args = (args[0], tuple(made) if isinstance(args[1], tuple) else made[0], *args[2:])
        if getattr(func, "__name__", "") in ("tensor", "as_tensor") and kwargs.get("device"):
            device = kwargs.pop("device")  # made in C++, out of the modes' sight
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


_OfCpu = torch.Generator


class _Generator(_OfCpu):
    """A generator of the CPU, whatever device is asked for."""

    def __new__(cls, device: Any = "cpu") -> Any:
        return _OfCpu.__new__(_OfCpu)


def _nothing() -> Callable[..., None]:
    """A function that does nothing; each time another one, since torch keeps a register of its functions."""
    return lambda *_, **__: None


NOTHING_TO_DO = (
    "set_rng_state", "set_device", "empty_cache", "manual_seed_all", "manual_seed", "synchronize", "init", "_lazy_init",
    "reset_peak_memory_stats",
)  # fmt: skip


@contextmanager
def pretended() -> Iterator[Counter[str]]:
    """Makes `cuda` the pretended device until the context ends; yields the counts of `reads`, from 0 on."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    if not hasattr(torch, NAME):
        _setup_privateuseone_for_python_backend(NAME, _Module(), _hook())
    state = torch.get_rng_state().clone
    cuda = {
        "is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0,
        "get_rng_state": lambda _=0: state(), "get_device_capability": lambda _=None: (9, 0),
        "is_bf16_supported": lambda *_: True, "_is_in_bad_fork": lambda: False, "is_initialized": lambda: True,
        "memory_allocated": lambda *_: 0, "max_memory_allocated": lambda *_: 0,
        **{name: _nothing() for name in NOTHING_TO_DO},
    }  # fmt: skip
    reads.clear()
    with ExitStack() as stack:
        for name, replacement in cuda.items():
            stack.enter_context(patch.object(torch.cuda, name, replacement))
        stack.enter_context(patch.object(torch, "Generator", _Generator))
        # In inference mode composite operations come undivided; what may not be done there, tests on a CPU find.
        no_grad = patch.object(
            torch._C, "_InferenceMode", lambda mode: torch.set_grad_enabled(not mode)
        )
        stack.enter_context(no_grad)
        stack.enter_context(_Names())
        stack.enter_context(_Factories())
        yield reads


class _Module:
    """What torch asks of a kind of device."""

    is_initialized = is_available = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16])
    manual_seed_all = set_rng_state = staticmethod(_nothing())
    get_rng_state = staticmethod(lambda _=0: torch.get_rng_state())


def _hook() -> Any:
    class Hook(torch._C._acc.PrivateUse1Hooks):
        def is_available(self) -> bool:
            return False  # nothing else in the process takes the device for a real one

        def has_primary_context(self, device: int) -> bool:
            return True

        def is_built(self) -> bool:
            return True

    return Hook()
