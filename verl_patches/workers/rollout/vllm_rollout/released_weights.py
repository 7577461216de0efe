# SPDX-License-Identifier: Apache-2.0
"""Giving back the memory of a module's parameters and taking it again, with a check that everything was loaded.

The values are not kept: the weight sync that follows `onload` brings new ones. So memory is uninitialised in between,
and whatever the sync leaves out would be sampled from as garbage; hence the checks.
"""

# NPU-ADAPTATION: weights are released and taken back without sleep mode

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class _View:
    """How one parameter lies in its storage, in elements."""

    parameter: nn.Parameter
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class _SharedStorage:
    """One storage and the parameters that view it."""

    elements: int
    dtype: torch.dtype
    device: torch.device
    views: tuple[_View, ...]


class ReleasedWeights:
    """The parameters of `module`, on the device or released.

    Parameter objects are the same before and after, so that references to them (weight loaders, routers, attention
    layers) stay right; shape, stride, dtype, and which parameters share memory are restored. Buffers are left alone.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._released: list[_SharedStorage] | None = None

    @property
    def on_device(self) -> bool:
        return self._released is None

    def release(self) -> None:
        """Leave zero elements behind every parameter. Does nothing when already released."""
        if self._released is None:
            self._released = self._layout()
            for storage in self._released:
                for view in storage.views:
                    view.parameter.data = torch.empty(0, dtype=storage.dtype, device=storage.device)

    def onload(self) -> None:
        """Give every parameter memory of its former layout, uninitialised. Does nothing when on the device."""
        if self._released is None:
            return
        for storage in self._released:
            flat = torch.empty(storage.elements, dtype=storage.dtype, device=storage.device)
            for view in storage.views:
                view.parameter.data = flat.as_strided(view.size, view.stride, view.offset)
        self._released = None

    def _layout(self) -> list[_SharedStorage]:
        by_storage: dict[tuple[torch.device, int], list[nn.Parameter]] = {}
        for parameter in self._module.parameters():
            pointer = parameter.untyped_storage().data_ptr()
            # Empty storages have no address of their own and share nothing.
            by_storage.setdefault((parameter.device, pointer or -id(parameter)), []).append(parameter)
        return [self._describe(parameters) for parameters in by_storage.values()]

    def _describe(self, parameters: list[nn.Parameter]) -> _SharedStorage:
        first = parameters[0]
        if any(parameter.dtype != first.dtype for parameter in parameters):
            names = [name for name, p in self._module.named_parameters() if any(p is q for q in parameters)]
            raise RuntimeError(
                f"parameters {', '.join(names)} share one storage with different dtypes "
                f"({', '.join(sorted({str(p.dtype) for p in parameters}))}); such a layout cannot be restored"
            )
        return _SharedStorage(
            elements=first.untyped_storage().nbytes() // first.element_size(),
            dtype=first.dtype,
            device=first.device,
            views=tuple(
                _View(parameter, tuple(parameter.shape), parameter.stride(), parameter.storage_offset())
                for parameter in parameters
            ),
        )


def poison(module: nn.Module) -> None:
    """Fill every floating-point parameter with NaN, so that `check_no_poison` sees what was never loaded."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.fill_(float("nan"))


def check_no_poison(module: nn.Module) -> None:
    """Raise RuntimeError naming every parameter that holds a NaN."""
    poisoned = [
        name
        for name, parameter in module.named_parameters()
        if parameter.is_floating_point() and bool(torch.isnan(parameter).any())
    ]
    if poisoned:
        raise RuntimeError(
            f"after the weight sync {len(poisoned)} rollout parameters still hold NaN: {_some(poisoned)}. Either the "
            "sync did not bring all of their elements, or the actor's own weights are NaN"
        )


def check_coverage(module: nn.Module, loaded: Iterable[str]) -> None:
    """Raise RuntimeError unless every parameter of `module` is among the names `load_weights` returned."""
    missing = sorted({name for name, _ in module.named_parameters()} - set(loaded))
    if missing:
        raise RuntimeError(
            f"the weight sync left out {len(missing)} rollout parameters: {_some(missing)}. They would be sampled from "
            "uninitialised memory; the actor's weight converter must yield them"
        )


def _some(names: list[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
