"""Torch tensors, in the same shared file as arrays."""

import functools
import math
import typing as tp

import xxhash

from ...errors import HandlerError, MissingPackageError
from .. import registry
from ..dumpcontext import DumpContext
from ..textindex import Info
from .arrays import map_array
from .base import BuiltinHandler, imported
from .pickled import PickleFallback

_ALIGNMENT = 64  # bytes
_torch = functools.partial(imported, "torch", "Storing or loading a tensor")


class TorchTensor(BuiltinHandler):
    """Tensors of any dense element type; loaded on the CPU, over a private memory map (changes stay in memory)."""

    only_reads = True

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        torch = _torch()
        if not isinstance(value, torch.Tensor):
            raise HandlerError(f"Expected a torch tensor, got {type(value).__name__}")
        if value.layout is not torch.strided or value.is_quantized or type(value) is not torch.Tensor:
            return PickleFallback.__dump_info__(ctx, value)
        tensor = value.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
        raw = memoryview(tensor.reshape(-1).view(torch.uint8).numpy()) if tensor.numel() else memoryview(b"")
        file, name = ctx.shared(".data")
        offset = file.align(_ALIGNMENT)
        file.write(raw)
        info = {
            "filename": name,
            "offset": offset,
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
        }
        if value.requires_grad:
            info["#requires_grad"] = True
        info["#sum"] = xxhash.xxh3_64_hexdigest(raw)
        return info

    @classmethod
    def load(cls, ctx: DumpContext, info: Info) -> tp.Any:
        """Load from an entry."""
        torch = _torch()
        dtype: tp.Any = getattr(torch, info["dtype"], None)
        if not isinstance(dtype, torch.dtype):
            raise MissingPackageError(f"This version of torch has no element type {info['dtype']!r}")
        shape = info["shape"]
        size = math.prod(shape) * dtype.itemsize
        if size:
            raw = map_array(ctx, {**info, "dtype": "uint8", "shape": [size]})
            tensor = torch.from_numpy(_aligned(raw)).view(dtype).reshape(shape)
        else:
            tensor = torch.empty(shape, dtype=dtype)
        return tensor.requires_grad_(info.get("#requires_grad", info.get("requires_grad", False)))


def _aligned(raw: tp.Any) -> tp.Any:
    """The same bytes where torch can use them."""
    import numpy as np

    return np.array(raw) if raw.ctypes.data % _ALIGNMENT else raw


registry.add_builtin(TorchTensor, by_name=("torch.Tensor",))
