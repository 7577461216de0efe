# SPDX-License-Identifier: Apache-2.0
"""Where the tensors of a Hugging Face model lie in a Megatron-core 0.12.1 distributed checkpoint.

A key map (`deepseek_v3`, `grouped_query`) gives the `MegatronLayout` of a config.json; the converters read it in both
directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Placement:
    """Rows [first, first + rows) of a Hugging Face tensor, and the box they fill in a Megatron tensor.

    hf_shape: of the whole Hugging Face tensor; names: every name under which the Megatron tensor is offered; shape: of
    the whole Megatron tensor; offsets: of the box's first element. The Megatron tensor may have leading axes that the
    Hugging Face one lacks (layers, experts): the box has size 1 along them, and the rows' shape along the others.
    """

    hf_name: str
    hf_shape: tuple[int, ...]
    names: tuple[str, ...]
    shape: tuple[int, ...]
    offsets: tuple[int, ...]
    first: int
    rows: int

    @property
    def leading(self) -> int:
        """Axes of the Megatron tensor that the Hugging Face one lacks."""
        return len(self.shape) - len(self.hf_shape)

    @property
    def row_elements(self) -> int:
        return math.prod(self.hf_shape[1:])

    def box(self, first: int, rows: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Offsets and shape, in the Megatron tensor, of `rows` rows from row `first` of this placement on."""
        offsets = list(self.offsets)
        offsets[self.leading] += first
        return tuple(offsets), (1,) * self.leading + (rows, *self.hf_shape[1:])


def unsplit(hf_name: str, name: str, shape: tuple[int, ...]) -> Placement:
    """A tensor that is the same on both sides."""
    return Placement(hf_name, shape, (name,), shape, (0,) * len(shape), 0, shape[0])


@dataclass(frozen=True)
class MegatronLayout:
    """A model's tensors and the names of its (empty) extra states in the Megatron checkpoint."""

    places: tuple[Placement, ...]
    extra_states: tuple[str, ...]


class LayerPlacements:
    """Collects the places of one layer.

    stacked: the layers are one Megatron tensor with a leading axis of `layers` (all layers alike), else each layer has
    names of its own, with its number in them.
    """

    def __init__(self, number: int, layers: int, *, stacked: bool) -> None:
        self._hf = f"model.layers.{number}."
        self._mcore = "decoder.layers." if stacked else f"decoder.layers.{number}."
        self._axis = ((layers, number),) if stacked else ()
        self.places: list[Placement] = []
        self.states: list[str] = []

    def unsplit(self, hf_name: str, shape: tuple[int, ...], *names: str) -> None:
        """A tensor that is a whole Megatron tensor of the layer, under each of the names."""
        self.part(hf_name, shape, names, shape, (0,) * len(shape))

    def part(
        self,
        hf_name: str,
        hf_shape: tuple[int, ...],
        names: tuple[str, ...],
        shape: tuple[int, ...],
        at: tuple[int, ...],
        rows: tuple[int, int] | None = None,
    ) -> None:
        """A tensor, or `rows` = (first, count) of it, that is part of a larger one of the layer."""
        first, count = rows or (0, hf_shape[0])
        sizes, numbers = tuple(size for size, _ in self._axis), tuple(number for _, number in self._axis)
        full = tuple(self._mcore + name for name in names)
        self.places.append(Placement(self._hf + hf_name, hf_shape, full, sizes + shape, numbers + at, first, count))

    def gated_mlp(self, hf: str, mcore: str, hidden: int, size: int) -> None:
        """gate, up and down projections: linear_fc1 has the rows of gate, then those of up."""
        for at, name in ((0, "gate_proj"), (size, "up_proj")):
            half, whole_fc1 = (size, hidden), (2 * size, hidden)
            self.part(f"{hf}.{name}.weight", half, (f"{mcore}.linear_fc1.weight",), whole_fc1, (at, 0))
        self.unsplit(f"{hf}.down_proj.weight", (hidden, size), f"{mcore}.linear_fc2.weight")
        self.state(f"{mcore}.linear_fc1")
        self.state(f"{mcore}.linear_fc2")

    def routed_experts(self, hidden: int, size: int, experts: int) -> None:
        """gate, up and down projections of every routed expert: one tensor each for linear_fc1 and linear_fc2, with an
        axis of experts; Megatron-core's grouped and its sequential experts have the same names."""
        to = "mlp.experts.experts."
        fc1, fc2 = (to + "linear_fc1.weight",), (to + "linear_fc2.weight",)
        for number in range(experts):
            hf = f"mlp.experts.{number}."
            for at, name in ((0, "gate_proj"), (size, "up_proj")):
                whole = (experts, 2 * size, hidden)
                self.part(f"{hf}{name}.weight", (size, hidden), fc1, whole, (number, at, 0))
            self.part(f"{hf}down_proj.weight", (hidden, size), fc2, (experts, hidden, size), (number, 0, 0))
            for linear in ("linear_fc1", "linear_fc2"):
                self.state(to + linear, (number, experts))

    def state(self, module: str, expert: tuple[int, int] | None = None) -> None:
        """The extra state of a module; of expert (number, of how many) where the experts share a name."""
        axes = [*self._axis, *(((expert[1], expert[0]),) if expert else ())] or [(1, 0)]
        numbers = ".".join(str(number) for _, number in axes)
        sizes = ".".join(str(size) for size, _ in axes)
        self.states.append(f"{self._mcore}{module}._extra_state/shard_{numbers}_{sizes}")
