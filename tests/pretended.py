"""A pretended GPU: tensors on the CPU that are tagged as CUDA's, and the errors that PyTorch would raise for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

CUDA = torch.device("cuda", 0)
#: What may have tensors of both devices: copies, and what takes an index from the CPU.
CROSSES = {f"torch.Tensor.{name}" for name in ("copy_", "__getitem__", "__setitem__", "index_put_", "data.__set__")}
CROSSES.add("_has_compatible_shallow_copy_type")
#: Factories: their device is an argument, the CPU by default.
MAKES = {
    *(torch.arange, torch.as_tensor, torch.empty, torch.eye, torch.full, torch.linspace, torch.ones, torch.rand),
    *(torch.randint, torch.randn, torch.randperm, torch.tensor, torch.zeros),
}


def is_tagged(value: object) -> bool:
    return isinstance(value, Tensor) and getattr(value, "_is_pretended", False)


def tensors(value: object) -> Iterator[Tensor]:
    """Every tensor in nested arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from tensors(one)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def is_cuda(device: object) -> bool:
    return isinstance(device, (str, torch.device)) and torch.device(device).type == "cuda"


class PretendedGPU(TorchFunctionMode):
    """Tag what is moved to `cuda` or computed from it; refuse what a GPU refuses."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = resolve_name(func) or getattr(func, "__name__", "")
        copies = name == "torch.Tensor.__deepcopy__"  # its memo has tensors of any device
        given = list(tensors(args[:1] if copies else [args, kwargs]))
        is_ours = any(map(is_tagged, given))
        if name == "torch.Tensor.device.__get__":
            return CUDA if is_ours else func(*args)
        if name == "torch.Tensor.is_cuda.__get__":
            return is_ours
        if is_ours and name in ("torch.Tensor.numpy", "torch.Tensor.__array__"):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if name in ("torch.Tensor.to", "torch.Tensor.cuda", "torch.Tensor.cpu"):
            return self.moved(name, func, args, kwargs)
        if func in MAKES or ".new_" in name or name.endswith("_like") or "device" in kwargs:
            return self.made(func, args, kwargs, is_ours)
        if name not in CROSSES:
            self.refuse_mixtures(name, given)
        result = func(*args, **kwargs)
        if name == "torch.Tensor.data.__set__":
            self.tag(args[0], is_tagged(args[1]))
        elif any(map(is_tagged, given[:1] if name in CROSSES else given)):
            self.tag(result)
        return result

    def tag(self, result: object, on: bool = True) -> Any:
        for one in tensors(result):
            one._is_pretended = on  # type: ignore[attr-defined]
        return result

    def moved(self, name: str, func: Any, args: Any, kwargs: Any) -> Tensor:
        """`.to`, `.cuda` or `.cpu`: a copy where the device changes."""
        source = args[0]
        asked = [one for one in (*args[1:], *kwargs.values()) if isinstance(one, (str, torch.device, Tensor))]
        goes = {"torch.Tensor.cuda": True, "torch.Tensor.cpu": False}.get(name, is_tagged(source))
        if name == "torch.Tensor.to" and asked:
            goes = is_tagged(asked[0]) if isinstance(asked[0], Tensor) else is_cuda(asked[0])
            args = (source, *("cpu" if is_cuda(one) else one for one in args[1:]))
            kwargs = {key: "cpu" if is_cuda(one) else one for key, one in kwargs.items()}
        result = source if name == "torch.Tensor.cuda" else func(*args, **kwargs)
        if goes != is_tagged(source) and result is source:
            result = result.clone()
        return result if result is source else self.tag(result, goes)

    def made(self, func: Any, args: Any, kwargs: Any, is_like_tagged: bool) -> Any:
        """A factory, `new_...` or `..._like`: on the device asked for, or else beside the tensor it is like."""
        goes = is_cuda(kwargs["device"]) if kwargs.get("device") is not None else is_like_tagged
        generator = kwargs.get("generator")
        if goes and generator is not None:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if "device" in kwargs:
            kwargs["device"] = "cpu" if goes else kwargs["device"]
        return self.tag(func(*args, **kwargs), goes)

    def refuse_mixtures(self, name: str, given: list[Tensor]) -> None:
        """Refuse tensors of two devices; a single number may come from the CPU."""
        large = {is_tagged(one) for one in given if torch._C._TensorBase.dim(one)}
        if len(large) > 1:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found cuda:0 and cpu")


class Event(SimpleNamespace):
    """A timing event: half a second lies between any two."""

    def record(self) -> None:
        pass

    def elapsed_time(self, end: object) -> float:
        return 500.0


copy_parameter = torch.nn.Parameter.__deepcopy__


def copied_parameter(self: Tensor, memo: dict[int, Any]) -> Tensor:
    """Copy a parameter, which is made anew from its data, with its device."""
    result: Tensor = copy_parameter(self, memo)
    result._is_pretended = is_tagged(self)  # type: ignore[attr-defined]
    return result


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """A machine whose one GPU is pretended."""
    from accelerate import PartialState
    from accelerate.state import AcceleratorState

    said: dict[str, Any] = {
        "is_available": lambda: True,
        "is_bf16_supported": lambda including_emulation=True: including_emulation,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda *_: "a pretended GPU",
        "synchronize": lambda *_: None,
        "set_device": lambda *_: None,
        "empty_cache": lambda: None,
        "manual_seed_all": lambda *_: None,
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda *_: None,
        "Event": Event,
    }
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in said.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch.nn.Parameter, "__deepcopy__", copied_parameter)
        # Optimisers ask the driver, which is not there, whether a graph is being captured.
        patch.setattr(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda _: None, raising=False)
        with PretendedGPU():
            yield
    PartialState._reset_state()
    AcceleratorState._reset_state(reset_partial_state=True)
