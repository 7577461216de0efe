# SPDX-License-Identifier: Apache-2.0
"""What the engines of a data-parallel domain tell each other to move requests: numbers and bytes, in host memory.

Every call is collective over the domain, which is in lockstep between two steps. Nothing but tensors is sent.
"""

# NPU-ADAPTATION: engines exchange tables and requests over the data-parallel group

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist

_T = TypeVar("_T")


class HandOverFailed(RuntimeError):
    """Requests could not be handed over, here or on another rank; no rank goes on."""


class Domain:
    """The engines of a domain, as one of them sees it.

    An engine's tensor-parallel ranks do the same with the same numbers, each in a column of its own; where they agree,
    they do so over both groups.

    Args:
        columns: vLLM's data-parallel group: the ranks of equal tensor-parallel rank.
        engine: vLLM's tensor-parallel group.
        reduce: adds a host tensor up over the columns, in place.
    """

    def __init__(self, columns: Any, engine: Any, reduce: Callable[[torch.Tensor], None]) -> None:
        self.rank, self.size = columns.rank_in_group, columns.world_size
        self._columns, self._engine, self._reduce = columns.cpu_group, engine.cpu_group, reduce

    def counts(self, *mine: int) -> list[list[int]]:
        """These few numbers of every engine; the one call of a step in which nothing moves."""
        table = torch.zeros(self.size, len(mine), dtype=torch.int32)
        table[self.rank] = torch.tensor(mine, dtype=torch.int32)
        self._reduce(table)
        return [[int(value) for value in row] for row in table.tolist()]

    def tables(self, mine: Sequence[Sequence[int]], lengths: Sequence[int], columns: int) -> list[list[list[int]]]:
        """The rows of every engine, each of so many numbers of 64 bits, when all know how many rows each has."""
        sent = torch.zeros(max(lengths), columns, dtype=torch.int64)
        if mine:
            sent[: len(mine)] = torch.tensor(mine, dtype=torch.int64)
        received = [torch.empty_like(sent) for _ in lengths]
        dist.all_gather(received, sent, group=self._columns)
        return [table[:length].tolist() for table, length in zip(received, lengths, strict=True)]

    def agree(self, what: str, number: int = 0, failure: BaseException | None = None) -> None:
        """Go on only if nobody failed and all have the same number, of at most 62 bits.

        Raises:
            HandOverFailed: on every rank, if not; from `failure` where there is one.
        """
        found = torch.tensor([failure is not None, number, -number], dtype=torch.int64)
        for group in (self._engine, self._columns):
            dist.all_reduce(found, op=dist.ReduceOp.MAX, group=group)
        if found[0]:
            where = f"here: {failure!r}" if failure is not None else "on another rank, whose log says why"
            raise HandOverFailed(f"re-balancing of requests failed while {what}, {where}") from failure
        if found[1] != -found[2]:
            raise HandOverFailed(f"re-balancing of requests failed: ranks differ while {what} ({number} here)")

    def agreed(self, what: str, do: Callable[[], _T]) -> _T:
        """What `do` returns, if it succeeded on every rank.

        Raises:
            HandOverFailed: it failed on one.
        """
        result, failure = None, None
        try:
            result = do()
        except Exception as error:
            failure = error
        self.agree(what, failure=failure)
        return result  # type: ignore[return-value]

    def exchange(self, to: Sequence[bytes]) -> list[bytes]:
        """Send each engine some bytes, and receive what each sends here."""
        sizes = torch.tensor([len(data) for data in to], dtype=torch.int64)
        coming = torch.empty_like(sizes)
        dist.all_to_all_single(coming, sizes, group=self._columns)
        sent = torch.frombuffer(bytearray(b"".join(to)) or bytearray(1), dtype=torch.uint8)[: int(sizes.sum())]
        received = torch.empty(int(coming.sum()), dtype=torch.uint8)
        dist.all_to_all_single(received, sent, coming.tolist(), sizes.tolist(), group=self._columns)
        return [piece.numpy().tobytes() for piece in received.split(coming.tolist())]
