# SPDX-License-Identifier: Apache-2.0
"""What is installed here, in the order in which one asks for it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from recipe.checks.crash import account, asks_to_stop
from recipe.checks.facts.machine import known_size
from recipe.checks.facts.packages import COMPARED
from recipe.checks.facts.run import Facts
from recipe.checks.finding import CannotTell, line_of
from recipe.runfile.schema import CUSTOM, SIM


def inventory(facts: Facts) -> dict[str, str]:
    """Subject -> what there is, or why that could not be told."""
    return {subject: line_of(_told(tell, facts)) for subject, tell in _SUBJECTS.items()}


def _told(tell: Callable[[Facts], str], facts: Facts) -> str:
    try:
        return tell(facts)
    except CannotTell as reason:
        return str(reason)
    except BaseException as error:
        if asks_to_stop(error):
            raise
        return account(error)


def _machine(facts: Facts) -> str:
    return f"{facts.machine.host}, {platform.system()} {platform.release()}, {platform.machine()}"


def _python(facts: Facts) -> str:
    return f"{'.'.join(map(str, facts.machine.python))} ({sys.executable})"


def _packages(facts: Facts) -> str:
    return ", ".join(f"{name} {facts.machine.version(name) or '-'}" for name in COMPARED if name != "torch-npu")


def _device(facts: Facts) -> str:
    machine = facts.machine
    simulated, real = machine.version("npu-sim"), machine.version("torch-npu")
    return f"{facts.device}; torch-npu {real or '-'}, npu-sim {simulated or '-'}, {machine.dies} dies"


def _dies(facts: Facts) -> str:
    if facts.device == SIM:
        return "simulated: a run file says how many, and their memory"
    if facts.dies is None or facts.dies.untold:
        return f"not known: {'torch was not asked' if facts.dies is None else facts.dies.untold}"
    if not facts.dies.name:
        return f"{facts.dies.text}: no hardware"
    named = facts.dies.hardware
    return f'{facts.dies.text}: [cluster] hardware = "{named or CUSTOM}"' + ("" if named else ", with [hardware]")


def _driver(facts: Facts) -> str:
    return f"{facts.machine.driver or '-'}; CANN {facts.machine.environ.get('ASCEND_HOME_PATH', '-')}"


def _sources(facts: Facts) -> str:
    manifest = facts.upstream_manifest
    if manifest is None:
        return f"{facts.upstream}: not synced"
    versions = ", ".join(f"{name} {source.get('version')}" for name, source in manifest.get("upstreams", {}).items())
    state = "with our line and patches" if manifest.get("state") == "ours" else "without ours"
    adopted = [f"{package} from {entry['path']}" for package, entry in manifest.get("adopted", {}).items()]
    taken = f"; adopted: {', '.join(adopted)}" if adopted else ""
    return f"{facts.upstream}: profile {manifest.get('profile')}, {state}: {versions}{taken}"


def _memory(facts: Facts) -> str:
    machine = facts.machine
    return f"{known_size(machine.memory)}, {known_size(machine.memory_available)} available; {machine.cpus} cores"


def _disk(facts: Facts) -> str:
    return f"{known_size(facts.machine.free_bytes(facts.runs))} free for {facts.runs}"


def _shm(facts: Facts) -> str:
    return f"{known_size(facts.machine.shm_free)} free in /dev/shm"


def _limits(facts: Facts) -> str:
    return ", ".join(f"{name} {_limit(value)}" for name, value in facts.machine.limits.items())


def _network(facts: Facts) -> str:
    return ", ".join(f"{name} {address}" for name, address in facts.machine.interfaces.items() if address) or "-"


def _processes(facts: Facts) -> str:
    processes = facts.machine.processes
    ours = sum(bool(process.run) for process in processes)
    return f"{ours} of runs of this recipe, {len(processes) - ours} daemons of another Ray"


def _overlay(facts: Facts) -> str:
    try:
        fits = facts.fits.values()
    except CannotTell as reason:
        return f"not checked: {reason}"
    except ModuleNotFoundError as error:
        return f"not checked: the package {error.name} is not installed"
    absent = sum(fit.verdict == "absent" for fit in fits)
    drifted = sum(not fit.fits for fit in fits)
    return f"{len(fits) - absent - drifted} patches fit, {drifted} do not, {absent} are for packages that are not there"


def _latest(facts: Facts) -> str:
    try:
        run = facts.latest_run.directory
    except CannotTell:
        return f"none in {facts.runs}"
    return os.path.relpath(run) if run.is_relative_to(Path.cwd()) else str(run)


def _limit(value: int | None) -> str:
    return "unlimited" if value is None else str(value)


_SUBJECTS: dict[str, Callable[[Facts], str]] = {
    "machine": _machine,
    "python": _python,
    "packages": _packages,
    "device": _device,
    "dies": _dies,
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
