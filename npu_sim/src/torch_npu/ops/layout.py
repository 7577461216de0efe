# SPDX-License-Identifier: Apache-2.0
"""Memory formats and hints.

A format belongs to a storage: views share what it was cast to, copies begin anew. It is remembered and told, but
changes neither values nor sizes: every tensor lies in rows here.
"""

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch_npu.limits import strictness
from torch_npu.npu.formats import BASE, PLAIN, Format, storage_elements
from torch_npu.npu.options import config

from . import checks
from .registry import CALLS

_cast: dict[int, tuple[StorageWeakRef, Format]] = {}
"""Address of a storage -> its format, for storages that were cast. The weak reference keeps the address from reuse."""


def _count(name: str, argument: str, tensor: Tensor) -> None:
    """What an `@op` does first. These are none: they give or look at the very tensor, gradients and format and all."""
    CALLS[name] += 1
    if tensor.device.type != "npu":
        raise RuntimeError(f"{name}: {argument} is on {tensor.device}, expected an npu tensor; move it with .npu()")


def _check(name: str, tensor: Tensor, acl_format: Any) -> Format:
    _count(name, "self", tensor)
    if acl_format not in (*PLAIN, *BASE):
        raise checks.unsupported(name, "acl_format", acl_format, " or ".join(str(int(one)) for one in (*PLAIN, *BASE)))
    new = Format(acl_format)
    if BASE.get(new) is Format.NCDHW and tensor.dim() < 5:
        raise checks.invalid(name, "self", f"of {tensor.dim()} dimensions", f"5 for {new}")
    if strictness.limited(name):
        strictness.check(name, {"self": tensor, "acl_format": acl_format})
    return new


def _format_of(tensor: Tensor) -> Format:
    known = _cast.get(StorageWeakRef(tensor.untyped_storage()).cdata)
    if known is not None:
        return known[1]
    return _of_dimensions(tensor)


def _of_dimensions(tensor: Tensor) -> Format:
    return {4: Format.NCHW, 5: Format.NCDHW}.get(tensor.dim(), Format.ND)


def _remember(tensor: Tensor, new: Format) -> None:
    for address in [address for address, (reference, _) in _cast.items() if reference.expired()]:
        del _cast[address]
    reference = StorageWeakRef(tensor.untyped_storage())
    _cast[reference.cdata] = (reference, new)


def _possible(tensor: Tensor, new: Format) -> Format:
    """The format of the copy that torch_npu makes when ``new`` is asked for."""
    if new in BASE:
        if not config.allow_internal_format:
            reason = "torch.npu.config.allow_internal_format is False"
        elif tensor.dtype == torch.float64:
            reason = "it is float64"
        elif new is Format.FRACTAL_NZ and tensor.dim() < 2:
            reason = "it has fewer than 2 dimensions"
        else:
            return new
        warnings.warn(f"a tensor stays in its base format, not {new}, for {reason}", stacklevel=4)
        new = BASE[new]
    # A plain format is one of its number of dimensions.
    if new in (Format.ND, Format.NCHW):
        return Format.NCHW if tensor.dim() == 4 else Format.ND
    return _of_dimensions(tensor) if new is Format.NCDHW else new


def _renames(old: Format, new: Format) -> bool:
    """Whether a cast moves nothing."""
    return new == old or (old in PLAIN and new in PLAIN)


def _given(tensor: Tensor, new: Format) -> Format:
    return new if _renames(_format_of(tensor), new) else _possible(tensor, new)


def _wanted(acl_format: int | Tensor) -> int:
    return _format_of(acl_format) if isinstance(acl_format, Tensor) else acl_format


def npu_format_cast(self: Tensor, acl_format: int | Tensor) -> Tensor:
    """The tensor in another format, or in that of another tensor: itself between plain formats, else a copy."""
    new = _check("npu_format_cast", self, _wanted(acl_format))
    cast = self if _renames(_format_of(self), new) else self.clone()
    _remember(cast, _given(self, new))
    return cast


def npu_format_cast_(self: Tensor, acl_format: int | Tensor) -> Tensor:
    """In-place form of :func:`npu_format_cast`."""
    _remember(self, _given(self, _check("npu_format_cast_", self, _wanted(acl_format))))
    return self


def get_npu_format(self: Tensor) -> Format:
    """The format of a tensor: what it was cast to, else NCHW of four dimensions, NCDHW of five, and ND."""
    _check("get_npu_format", self, Format.ND)
    return _format_of(self)


def npu_prefetch(input: Tensor, dependency: Tensor | None, max_size: int, offset: int = 0) -> None:
    """A cache hint; nothing to do. As in op-plugin, sizes that are none are a RuntimeError, in its words."""
    _count("npu_prefetch", "input", input)
    size = storage_elements(_format_of(input), input.shape, input.element_size()) * input.element_size()
    if max_size <= 0:
        raise RuntimeError(f"npu_prefetch: max_size should be greater than zero, but got {max_size}")
    if offset < 0:
        raise RuntimeError(f"npu_prefetch: offset should not be smaller than zero, but got {offset}")
    if offset >= size:
        raise RuntimeError(f"npu_prefetch: offset out of range of tensor size, tensor size: {size}, offset: {offset}")
