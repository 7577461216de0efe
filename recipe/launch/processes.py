# SPDX-License-Identifier: Apache-2.0
"""The processes of one run, found by the mark they carry, and how they are ended.

Everything a run starts (driver, Ray's daemons, workers, their helpers) inherits RECIPE_RUN_ID. Processes are found by
that mark in their environment and as descendants of marked ones, and nothing else is ever signalled.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import psutil

from recipe.runfile.environment import RUN_ID

_RAYLET = "raylet"
_TITLE = "ray::"


def marked(run_id: str) -> list[psutil.Process]:
    """All live processes of the run, without the calling one."""
    processes: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        if process.pid == psutil.Process().pid or process.pid in processes or not _carries(process, run_id):
            continue
        processes[process.pid] = process
        for child in _descendants(process):
            processes.setdefault(child.pid, child)
    return [process for process in processes.values() if alive(process)]


def _carries(process: psutil.Process, run_id: str) -> bool:
    try:
        return process.environ().get(RUN_ID) == run_id
    except (psutil.Error, OSError):
        return False  # gone, or another user's


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children(recursive=True) if child.pid != psutil.Process().pid]
    except psutil.Error:
        return []


def alive(process: psutil.Process) -> bool:
    """Whether this process runs: it is neither a zombie, nor has another one its pid."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def is_halted(pid: int) -> bool:
    """Whether that process is there and does not run until it gets SIGCONT."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def end_all(run_id: str, patience_s: float = 5.0, limit_s: float = 30.0) -> list[psutil.Process]:
    """Terminate the run's processes and kill them after `patience_s`; returns those that still run after `limit_s`.

    New processes that appear meanwhile (Ray restarts workers) are ended too.
    """
    start = time.monotonic()
    terminated: set[int] = set()
    while True:
        running = marked(run_id)
        waited = time.monotonic() - start
        if not running or waited > limit_s:
            return running
        for process in running:
            try:
                if waited > patience_s:
                    process.kill()
                elif process.pid not in terminated:
                    process.terminate()
                    terminated.add(process.pid)
            except psutil.Error:
                continue
        psutil.wait_procs(running, timeout=0.5)


def ray_workers(processes: Iterable[psutil.Process], actor: str) -> list[psutil.Process]:
    """The processes that are Ray workers with an actor of the class `actor`.

    A worker is what a raylet has started, a direct child of it. The title alone does not tell: what a worker forks
    (Megatron-core's checkpoint writers, data loaders, compilers) inherits it.
    """
    return [process for process in processes if _is_worker(process, actor)]


def _is_worker(process: psutil.Process, actor: str) -> bool:
    try:
        return _title(process) == f"{_TITLE}{actor}" and _started_by_ray(process)
    except psutil.Error:
        return False


def resident_by_name(processes: Iterable[psutil.Process]) -> dict[str, int]:
    """Resident bytes by process name, summed over the processes of one name. Shared pages count in each."""
    totals: dict[str, int] = {}
    for name, size in _sizes(processes):
        totals[name] = totals.get(name, 0) + size
    return totals


def _sizes(processes: Iterable[psutil.Process]) -> Iterator[tuple[str, int]]:
    for process in processes:
        try:
            yield display_name(process), process.memory_info().rss
        except psutil.Error:
            continue


def display_name(process: psutil.Process) -> str:
    """A short name: Ray's title up to the class (`ray::WorkerDict`), the module of `python -m`, or the program.

    A process that has a worker's title but is only its fork is called `fork of ray::WorkerDict`.
    """
    title = _title(process)
    if title is not None:
        return title if _started_by_ray(process) else f"fork of {title}"
    command = process.cmdline()
    if "-m" in command[:-1]:
        return command[command.index("-m") + 1]
    return process.name()


def _title(process: psutil.Process) -> str | None:
    """The title that Ray gives its workers, up to the class; None for a process without one."""
    command = process.cmdline()
    if not command or not command[0].startswith(_TITLE):
        return None
    return command[0].split(".")[0].split("(")[0].split()[0]


def _started_by_ray(process: psutil.Process) -> bool:
    parent = process.parent()
    return parent is not None and parent.name() == _RAYLET
