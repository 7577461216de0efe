# SPDX-License-Identifier: Apache-2.0
"""Which unfinished requests change engines, so that all engines of a domain can decode with a smaller graph.

In a decode step all engines of a data-parallel domain run the smallest graph that holds the fullest of them. Late in a
rollout some have finished nearly everything and others little, and the fullest decides. Moving requests evens that
out, and costs their tokens: the receiver prefills them again, while the others wait for it.

Plain Python on plain numbers: every rank makes the same plan of the same table.
"""

# NPU-ADAPTATION: the planner of the re-balancing

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

# Padded decode tokens that a token prefilled again must save. One by one they cost alike only where a step takes time
# in proportion to its tokens; prefill is denser than decode, so that this asks for rather too much than too little.
PREFILL_WEIGHT = 1.0
# Steps until a domain whose plan did not pay is looked at again: its tables have to be collected for that.
PAUSE_STEPS = 32


@dataclass(frozen=True, order=True)
class Running:
    """A request that decodes.

    Attributes:
        request: its number, of which no other in the domain has the same.
        tokens: of prompt and answer so far; what an engine that receives it prefills.
        rest: expected number of tokens that it is still to get; see `expected_rest`.
    """

    request: int
    tokens: int
    rest: int


@dataclass(frozen=True, order=True)
class Move:
    """A request that leaves the engine `source` for the engine `target`; both are data-parallel ranks."""

    request: int
    source: int
    target: int
    tokens: int


@dataclass(frozen=True)
class Plan:
    """Moves, after which every engine's requests fit the graph `size`; or none, and then `size` is the present one.

    Attributes:
        saved: padded tokens of one engine that are expected to be saved.
        cost: tokens that the engine that receives most prefills again, while the others wait.
    """

    size: int
    moves: tuple[Move, ...] = ()
    saved: float = 0.0
    cost: int = 0

    @property
    def digest(self) -> int:
        """A number of 62 bits by which ranks compare their plans."""
        content = repr((self.size, self.moves)).encode()
        return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 2


def expected_rest(generated: int, most: int) -> int:
    """Tokens that an unfinished answer is expected to get still: as many as it has, but no more than it may.

    Of lengths with a heavy tail, what has become long goes on for long; for all we know, for as long again.

    Args:
        generated: tokens that it has.
        most: tokens that it may still get.
    """
    return max(1, min(generated, most))


def graph_for(requests: int, sizes: Sequence[int]) -> int:
    """The smallest of the ascending `sizes` that holds so many requests; an engine without any decodes a dummy.

    Raises:
        ValueError: none does.
    """
    place = bisect_left(sizes, max(1, requests))
    if place == len(sizes):
        raise ValueError(f"{requests} requests of one engine, and the largest graph is for {sizes[-1]}")
    return sizes[place]


def could_drop(counts: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether all requests of the domain, evenly spread, fit a smaller graph than the fullest engine needs."""
    place = bisect_left(sizes, max(1, *counts))
    return 0 < place < len(sizes) and sum(counts) <= len(counts) * sizes[place - 1]


def plan_moves(engines: Sequence[Sequence[Running]], sizes: Sequence[int]) -> Plan:
    """The plan that is expected to save most, if any pays.

    For each smaller graph: an engine with more requests than it holds gives up the surplus, and no more, those with the
    fewest tokens. An engine that has room gets them, the longest first, each to the one that has been given the fewest
    tokens. Of the graphs for which all requests fit, the one with the largest `saved - PREFILL_WEIGHT * cost` is taken,
    of equal ones the largest, if that is more than zero. What is saved per step is the difference of the graphs; the
    steps are those in which the fullest engine would have come down to the smaller graph by itself.

    Args:
        engines: of each data-parallel rank, what it runs; none waits or is being prefilled.
        sizes: of the graphs, ascending.
    """
    present = graph_for(max(len(running) for running in engines), sizes)
    best, gain = Plan(present), 0.0
    for size in reversed(sizes[: bisect_left(sizes, present)]):
        if sum(len(running) for running in engines) > size * len(engines):
            break
        moves = _moves(engines, size)
        saved = (present - size) * max(_steps_until(running, size) for running in engines)
        received = [0] * len(engines)
        for move in moves:
            received[move.target] += move.tokens
        found = Plan(size, moves, saved, max(received))
        if found.saved - PREFILL_WEIGHT * found.cost > gain:
            best, gain = found, found.saved - PREFILL_WEIGHT * found.cost
    return best


def _moves(engines: Sequence[Sequence[Running]], size: int) -> tuple[Move, ...]:
    leaving = [
        (one, source)
        for source, running in enumerate(engines)
        for one in sorted(running, key=lambda one: (one.tokens, one.request))[: max(0, len(running) - size)]
    ]
    leaving.sort(key=lambda found: (-found[0].tokens, found[0].request))
    # Of each engine with room: tokens that it has been given, requests that it has, its number.
    room = [[0, len(running), engine] for engine, running in enumerate(engines) if len(running) < size]
    moves = []
    for one, source in leaving:
        receiver = min(room)
        moves.append(Move(one.request, source, receiver[2], one.tokens))
        receiver[0] += one.tokens
        receiver[1] += 1
        if receiver[1] == size:
            room.remove(receiver)
    return tuple(sorted(moves))


def _steps_until(running: Sequence[Running], size: int) -> float:
    """Expected steps until so many requests are left, if each ends at any step with the same probability.

    With `n` of them and a mean rest of `r`, the next one ends after `r / n` steps.
    """
    if len(running) <= size:
        return 0.0
    mean = sum(one.rest for one in running) / len(running)
    return mean * sum(1 / left for left in range(size + 1, len(running) + 1))


class Watch:
    """Says, step by step, when it is worth collecting the tables for a plan; the same on every rank.

    Args:
        sizes: of the graphs, ascending.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self._again = 0

    def asks(self, step: int, running: Sequence[int], prefilling: int) -> bool:
        """Whether to make a plan now.

        Args:
            step: number of the present step.
            running: requests that each engine decodes.
            prefilling: requests of the domain that wait or have not been prefilled to the end: first things first.
        """
        return not prefilling and step >= self._again and could_drop(running, self.sizes)

    def planned(self, step: int, plan: Plan) -> None:
        """Take note of the plan that was made at `step`."""
        self._again = step + (1 if plan.moves else PAUSE_STEPS)

    def quiet_steps(self, step: int) -> int:
        """Steps from `step` on in which `asks` says no, whatever happens."""
        return max(0, self._again - step)
