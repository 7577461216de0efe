# SPDX-License-Identifier: Apache-2.0
"""Slices of tensors, and where they lie in the parameters of either engine."""

# NPU-ADAPTATION: a die is sent only the weights that it lacks: slices of tensors

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from verl_patches.utils.routes.layouts import ActorLayout, LayoutError, RolloutLayout
from verl_patches.utils.routes.tensors import Sizes, Tensor


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a tensor with the indices [first, stop) along its axis."""

    tensor: Tensor
    first: int
    stop: int

    @property
    def nbytes(self) -> int:
        return (self.stop - self.first) * self.tensor.index_bytes


def whole(tensor: Tensor) -> Span:
    return Span(tensor, 0, tensor.length)


def common(one: range, other: range) -> range:
    """The indices that are in both of two runs."""
    return range(max(one.start, other.start), min(one.stop, other.stop))


def nbytes(spans: Iterable[Span]) -> int:
    return sum(span.nbytes for span in spans)


@dataclass(frozen=True, slots=True)
class Exchange:
    """Spans that one die sends to others, in this order, the same to each of them."""

    source: int
    audience: tuple[int, ...]
    spans: tuple[Span, ...]

    @property
    def nbytes(self) -> int:
        return nbytes(self.spans)


def take(spans: deque[Span], limit: int) -> list[Span]:
    """Removes spans of up to `limit` bytes together from the front, the last one cut where the limit falls.

    Raises LayoutError where not even one index of the first span fits.
    """
    taken: list[Span] = []
    while spans and limit > 0:
        span = spans[0]
        indices = limit // span.tensor.index_bytes
        if span.first + indices >= span.stop:
            taken.append(spans.popleft())
            limit -= span.nbytes
            continue
        if indices:
            middle = span.first + indices
            taken.append(Span(span.tensor, span.first, middle))
            spans[0] = Span(span.tensor, middle, span.stop)
        break
    if spans and not taken:
        tensor = spans[0].tensor
        raise LayoutError(
            f"one index of {tensor.name} along axis {tensor.axis} has {tensor.index_bytes} bytes, more than the "
            f"{limit} that a die may have on the way for it; raise the buffer"
        )
    return taken


@dataclass(frozen=True, slots=True)
class Slice:
    """`length` indices from `first` on along `axis` of a parameter of a die.

    `entry`: in the parameter's leading axis, which `axis` does not count; None where the tensor has all axes.
    """

    parameter: str
    entry: int | None
    axis: int
    first: int
    length: int


def actor_slice(span: Span, actor: ActorLayout, rank: int, sizes: Sizes) -> Slice:
    """Where an actor's rank holds a span of its; layers are numbered as in the whole model, experts as on the die."""
    tensor = span.tensor
    held = tensor.actor_range(actor, actor.tensor_rank(rank))
    parameter = tensor.actor.parameter
    if tensor.expert is not None:
        parameter += str(tensor.expert - actor.experts(actor.expert_rank(rank), sizes.experts).start)
    first = tensor.actor.block * len(held) + span.first - held.start
    return Slice(parameter, None, tensor.axis, first, span.stop - span.first)


def rollout_slice(span: Span, rollout: RolloutLayout, rank: int, sizes: Sizes) -> Slice:
    """Where a rollout's rank keeps a span that it needs."""
    tensor = span.tensor
    held = tensor.rollout_range(rollout, rollout.tensor_rank(rank))
    entry = None
    if tensor.expert is not None:
        entry = tensor.expert - rollout.experts(rollout.expert_rank(rank), sizes.experts).start
    first = tensor.rollout.block * len(held) + span.first - held.start
    return Slice(tensor.rollout.parameter, entry, tensor.axis, first, span.stop - span.first)
