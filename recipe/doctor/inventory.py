# SPDX-License-Identifier: Apache-2.0
"""What is installed here, in the order in which one asks for it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from recipe.doctor.facts import DoctorFacts
from recipe.preflight.catalogue import CannotTell, line_of
from recipe.preflight.crash import account, asks_to_stop
from recipe.preflight.machine import known_size
from recipe.preflight.packages import COMPARED


def inventory(facts: DoctorFacts) -> dict[str, str]:
    """Subject -> what there is, or why that could not be told."""
    return {subject: line_of(_told(tell, facts)) for subject, tell in _SUBJECTS.items()}


def _told(tell: Callable[[DoctorFacts], str], facts: DoctorFacts) -> str:
    try:
        return tell(facts)
    except CannotTell as reason:
        return str(reason)
    except BaseException as error:
        if asks_to_stop(error):
            raise
        return account(error)


def _machine(facts: DoctorFacts) -> str:
    return f"{facts.machine.host}, {platform.system()} {platform.release()}, {platform.machine()}"


def _python(facts: DoctorFacts) -> str:
    return f"{'.'.join(map(str, facts.machine.python))} ({sys.executable})"


def _packages(facts: DoctorFacts) -> str:
    return ", ".join(f"{name} {facts.machine.version(name) or '-'}" for name in COMPARED if name != "torch-npu")


def _device(facts: DoctorFacts) -> str:
    machine = facts.machine
    simulated, real = machine.version("npu-sim"), machine.version("torch-npu")
    return f"{facts.device}; torch-npu {real or '-'}, npu-sim {simulated or '-'}, {machine.dies} dies"


def _driver(facts: DoctorFacts) -> str:
    return f"{facts.machine.driver or '-'}; CANN {facts.machine.environ.get('ASCEND_HOME_PATH', '-')}"


def _sources(facts: DoctorFacts) -> str:
    from recipe.sources.swap import read_manifest

    manifest = read_manifest(facts.node.upstream)
    if manifest is None:
        return f"{facts.node.upstream}: not synced"
    versions = ", ".join(f"{name} {one.get('version')}" for name, one in manifest.get("upstreams", {}).items())
    state = "with our line and patches" if manifest.get("state") == "ours" else "without ours"
    return f"{facts.node.upstream}: profile {manifest.get('profile')}, {state}: {versions}"


def _memory(facts: DoctorFacts) -> str:
    machine = facts.machine
    return f"{known_size(machine.memory)}, {known_size(machine.memory_available)} available; {machine.cpus} cores"


def _disk(facts: DoctorFacts) -> str:
    return f"{known_size(facts.machine.free_bytes(facts.runs))} free for {facts.runs}"


def _shm(facts: DoctorFacts) -> str:
    return f"{known_size(facts.machine.shm_free)} free in /dev/shm"


def _limits(facts: DoctorFacts) -> str:
    return ", ".join(f"{name} {_limit(value)}" for name, value in facts.machine.limits.items())


def _network(facts: DoctorFacts) -> str:
    return ", ".join(f"{name} {address}" for name, address in facts.machine.interfaces.items() if address) or "-"


def _processes(facts: DoctorFacts) -> str:
    processes = facts.machine.processes
    ours = sum(bool(one.run) for one in processes)
    return f"{ours} of runs of this recipe, {len(processes) - ours} daemons of another Ray"


def _overlay(facts: DoctorFacts) -> str:
    try:
        found = facts.fits.values()
    except CannotTell as reason:
        return f"not checked: {reason}"
    except ModuleNotFoundError as error:
        return f"not checked: the package {error.name} is not installed"
    absent = sum(one.verdict == "absent" for one in found)
    drifted = sum(not one.fits for one in found)
    return (
        f"{len(found) - absent - drifted} patches fit, {drifted} do not, {absent} are for packages that are not there"
    )


def _latest(facts: DoctorFacts) -> str:
    try:
        run: Path = facts.latest_run
    except CannotTell:
        return f"none in {facts.runs}"
    return os.path.relpath(run) if run.is_relative_to(Path.cwd()) else str(run)


def _limit(value: int | None) -> str:
    return "unlimited" if value is None else str(value)


_SUBJECTS: dict[str, Callable[[DoctorFacts], str]] = {
    "machine": _machine,
    "python": _python,
    "packages": _packages,
    "device": _device,
    "driver": _driver,
    "sources": _sources,
    "overlay": _overlay,
    "memory": _memory,
    "disk": _disk,
    "shm": _shm,
    "limits": _limits,
    "network": _network,
    "processes": _processes,
    "latest run": _latest,
}
