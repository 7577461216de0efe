# SPDX-License-Identifier: Apache-2.0
"""What a job will do, for `--dry-run` and the first lines of a run: bytes, a table by layers, the disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from recipe.weights.errors import InterruptedJobError
from recipe.weights.job import Job, layer_of
from recipe.weights.workspace import free_bytes, read_ledger


def disk_line(job: Job) -> str:
    """One line: the space that the job still needs, and what is free.

    Raises InterruptedJobError where it does not fit. An output that is replaced stands until the new one is whole, so
    its bytes do not count as free.
    """
    ledger = read_ledger(job.output)
    kept = ledger.kept(job) if ledger else None
    done = sum(file.nbytes for file in kept.values()) if kept else 0
    needed, free = job.nbytes + job.small_bytes - done, free_bytes(job.output)
    line = f"disk: {needed} bytes needed{f' ({done} are there)' if done else ''}, {free} free"
    if needed > free:
        raise InterruptedJobError(f"{job.output}: {line}; make room or choose another disk")
    return line


def summary(job: Job, tensors: int, nbytes: int) -> str:
    """One line: what goes in and what comes out."""
    return (
        f"{job.input}: {tensors} tensors, {nbytes} bytes ({nbytes / 1e9:.2f} GB) -> {job.output}: "
        f"{len(job.files)} files, {job.nbytes} bytes ({job.nbytes / 1e9:.2f} GB)"
    )


def layer_table(job: Job) -> Iterator[str]:
    """A line for every run of layers of the same size: layers, parts, bytes."""
    parts: dict[int | None, list[int]] = {}
    for file in job.files:
        for part in file.parts:
            row = parts.setdefault(layer_of(part.label), [0, 0])
            row[0] += 1
            row[1] += part.nbytes
    yield f"{'layers':>12} {'parts':>8} {'bytes each':>18}"
    if None in parts:
        yield _row("outside", *parts[None])
    for first, last, (count, nbytes) in _runs(sorted((n, row[0], row[1]) for n, row in parts.items() if n is not None)):
        yield _row(f"{first}" if first == last else f"{first}-{last}", count, nbytes)
    yield _row("all", sum(row[0] for row in parts.values()), job.nbytes)


def _row(name: str, count: int, nbytes: int) -> str:
    return f"{name:>12} {count:>8} {nbytes:>18}"


def _runs(rows: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """(first, last, (parts, bytes)) of neighbouring layers that are alike."""
    run: list[int] = []
    size = (0, 0)
    for number, count, nbytes in rows:
        if run and (number != run[-1] + 1 or (count, nbytes) != size):
            yield run[0], run[-1], size
            run = []
        run.append(number)
        size = (count, nbytes)
    if run:
        yield run[0], run[-1], size
