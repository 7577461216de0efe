# SPDX-License-Identifier: Apache-2.0
"""What is installed here, in the order in which one asks for it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from recipe.doctor.facts import DoctorFacts
from recipe.preflight.catalogue import CannotTell
from recipe.preflight.machine import gib_text
from recipe.preflight.packages import COMPARED


def inventory(facts: DoctorFacts) -> dict[str, str]:
    """Subject -> what there is."""
    return dict(_lines(facts))


def _lines(facts: DoctorFacts) -> Iterator[tuple[str, str]]:
    from recipe.sources.swap import read_manifest

    machine = facts.machine
    yield "machine", f"{machine.host}, {platform.system()} {platform.release()}, {platform.machine()}"
    yield "python", f"{'.'.join(map(str, machine.python))} ({sys.executable})"
    yield "packages", ", ".join(f"{name} {machine.version(name) or '-'}" for name in COMPARED if name != "torch-npu")
    simulated, real = machine.version("npu-sim"), machine.version("torch-npu")
    yield "device", f"{facts.device}; torch-npu {real or '-'}, npu-sim {simulated or '-'}, {machine.dies} dies"
    yield "driver", f"{machine.driver or '-'}; CANN {machine.environ.get('ASCEND_HOME_PATH', '-')}"
    manifest = read_manifest(facts.node.upstream)
    if manifest is None:
        yield "sources", f"{facts.node.upstream}: not synced"
    else:
        versions = ", ".join(f"{name} {one.get('version')}" for name, one in manifest.get("upstreams", {}).items())
        state = "with our line and patches" if manifest.get("state") == "ours" else "without ours"
        yield "sources", f"{facts.node.upstream}: profile {manifest.get('profile')}, {state}: {versions}"
    yield "overlay", _overlay(facts)
    yield "memory", f"{gib_text(machine.memory)}, {gib_text(machine.memory_available)} available; {machine.cpus} cores"
    yield "disk", f"{gib_text(machine.free_bytes(facts.runs))} free for {facts.runs}"
    yield "shm", f"{gib_text(machine.shm_free)} free in /dev/shm"
    yield "limits", ", ".join(f"{name} {_limit(value)}" for name, value in machine.limits.items())
    addresses = ", ".join(f"{name} {address}" for name, address in machine.interfaces.items() if address)
    yield "network", addresses or "-"
    ours = sum(bool(one.run) for one in machine.processes)
    yield "processes", f"{ours} of runs of this recipe, {len(machine.processes) - ours} daemons of another Ray"
    yield "latest run", _latest(facts)


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
