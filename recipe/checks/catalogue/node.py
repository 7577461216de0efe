# SPDX-License-Identifier: Apache-2.0
"""N: this machine as one of the run's: dies, memory, disk, limits, ports, clock, and what earlier runs left."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from recipe.checkpoints import look
from recipe.checks.declaration import check
from recipe.checks.facts.run import Facts
from recipe.checks.finding import CannotTell, Complaint, NoMatter, bad, doubtful
from recipe.runfile.overrides import OBJECT_STORE_BYTES
from recipe.runfile.schema import CUDA, CUSTOM, GIB, NPU, SIM
from recipe.sizes import size_text, told_apart

# scripts/setup.sh asks for the same; a run of the shipped sim.toml stays below.
SIM_MEMORY = 8000 * 2**20
# Logs, metrics and compiled graphs of a run, without its checkpoints.
RUN_DISK = {SIM: 1 * GIB, NPU: 20 * GIB, CUDA: 20 * GIB}
# Docker's default /dev/shm is 64 MiB: Ray then keeps its objects on disk.
SHM = {SIM: OBJECT_STORE_BYTES, NPU: 16 * GIB, CUDA: 16 * GIB}
# Ray's documentation asks for 65536 open files on clusters; a process of ours holds some hundreds.
FILES = {SIM: 4096, NPU: 65536, CUDA: 65536}
# What drivers leave of dies of one kind differs by less than this, and two kinds differ by more.
MOST_BEYOND = 1.004
# Threads of a worker on a node of 16 dies, times the workers, with room for Ray's own.
TASKS = {SIM: 2048, NPU: 32768, CUDA: 32768}


@check(
    "N001", "this node has the dies that the run file counts on", needs="node",
    why="Ray is told [cluster] dies_per_node, and a worker on a die that is not there fails when the model is built",
    fix="correct [cluster] dies_per_node, or start the container with all /dev/davinci* (scripts/run_container.sh)",
)  # fmt: skip
def _dies(facts: Facts) -> Iterator[Complaint]:
    if facts.device == SIM:
        raise NoMatter
    wanted, machine = facts.config.cluster.dies_per_node, facts.machine
    dies, files = (machine.dies, "davinci") if facts.device == NPU else (machine.gpus, "nvidia")
    if _other_hardware(facts):
        raise NoMatter  # N018 names it
    if dies < wanted:
        yield bad(f"{dies} of /dev/{files}0, 1, ...", f"{wanted}")
    elif dies > wanted:
        yield doubtful(f"{dies} dies on this node, of which {wanted} would work", f"{wanted}")


@check(
    "N002", "the driver of the dies can be seen", needs="node", any_run=True,
    why="a container without the driver's directory has device files and no device",
    fix="mount /usr/local/Ascend/driver into the container (scripts/run_container.sh does)",
)  # fmt: skip
def _driver(facts: Facts) -> Iterator[Complaint]:
    if facts.device != NPU:
        raise NoMatter
    if facts.machine.driver is None:
        yield bad("no /usr/local/Ascend/driver/version.info", "the driver's directory")


@check(
    "N003", "the machine has the memory of the run file, else of the plan, and most of it is free", needs="node",
    any_run=True,
    why="pinned buffers of the optimizer, offloaded parameters and Ray's objects live there; a process that the kernel "
        "kills for memory leaves no message in the run's logs",
    fix="end what holds it, or set [cluster] host_memory_gib_per_node to what there is and plan again",
)  # fmt: skip
def _memory(facts: Facts) -> Iterator[Complaint]:
    total, free = facts.machine.memory, facts.machine.memory_available
    if total is None or free is None:
        raise CannotTell("the memory of this machine cannot be read")
    stated = facts.config.cluster.host_memory_gib_per_node
    if stated is not None:
        wanted = int(stated * GIB)
    else:
        wanted = SIM_MEMORY if facts.device == SIM else facts.planned_memory.host.total
    # What the machine's maker calls its memory is a little more than what the kernel hands out.
    if total < 0.95 * wanted:
        yield bad(*told_apart(total, wanted))
    elif free < 0.8 * wanted:
        available, needed = told_apart(free, wanted)
        yield doubtful(f"{available} available of {size_text(total)}", f"most of {needed}")


@check(
    "N004", "the disk has room for what the run leaves", needs="node", any_run=True,
    why="a checkpoint that does not fit ends the run in the middle of writing it",
    fix="make room, or set [run] output_dir and checkpoint_dir to another disk",
)  # fmt: skip
def _disk(facts: Facts) -> Iterator[Complaint]:
    wanted = RUN_DISK[facts.device]
    free = facts.machine.free_bytes(facts.paths.run_dir)
    if free is None:
        raise CannotTell(f"the file system of {facts.paths.run_dir} cannot be asked")
    if free < wanted:
        left, needed = told_apart(free, wanted)
        yield bad(f"{left} free for {facts.paths.run_dir}", needed)


@check(
    "N005", "the disk has room for the checkpoints that are kept", needs="node",
    why="one checkpoint has the weights in bfloat16 and, for going on, 12 bytes of optimizer state for each parameter; "
        "the oldest is removed after the next is whole, and the one with the best score is kept too",
    fix="make room, set [run] checkpoint_dir to another disk, or lower keep_checkpoints",
)  # fmt: skip
def _checkpoint_disk(facts: Facts) -> Iterator[Complaint]:
    run = facts.config.run
    if run.save_every == 0:
        raise NoMatter
    try:
        saved = sum(checkpoint.whole for checkpoint in look(facts.paths.checkpoints))
    except OSError as error:
        raise CannotTell(f"{error.filename}: {error.strerror}") from None
    more = max(1, run.most_checkpoints - saved)
    wanted = more * 14 * facts.parameters
    free = facts.machine.free_bytes(facts.paths.checkpoints)
    if free is None:
        raise CannotTell(f"the file system of {facts.paths.checkpoints} cannot be asked")
    if free < wanted:
        left, needed = told_apart(free, wanted)
        yield bad(
            f"{left} free for {facts.paths.checkpoints}",
            f"{needed}: {more} checkpoints of {size_text(14 * facts.parameters)}",
        )


@check(
    "N006", "/dev/shm holds Ray's objects", needs="node", any_run=True,
    why="Ray keeps them there; in a container with Docker's default of 64 MiB it falls back to the disk and says so in "
        "a log that nobody reads",
    fix="start the container with --shm-size (scripts/run_container.sh does), or remount /dev/shm larger",
)  # fmt: skip
def _shm(facts: Facts) -> Iterator[Complaint]:
    free = facts.machine.shm_free
    if free is None:
        raise CannotTell("there is no /dev/shm here")
    if free < SHM[facts.device]:
        left, needed = told_apart(free, SHM[facts.device])
        yield bad(f"{left} free in /dev/shm", needed)


def _below(limit: int | None, wanted: int) -> bool:
    return limit is not None and limit < wanted


@check(
    "N007", "a process may open enough files", needs="node", any_run=True,
    why="every connection between two processes of Ray, gloo and HCCL is one; at the limit a worker dies of 'too many "
        "open files', mostly in the first collective",
    fix="run: ulimit -n 65536 (container: --ulimit nofile=65536:65536)",
)  # fmt: skip
def _files(facts: Facts) -> Iterator[Complaint]:
    limit, wanted = facts.machine.limits["nofile"], FILES[facts.device]
    if _below(limit, 1024) or (facts.device != SIM and _below(limit, 4096)):
        yield bad(f"ulimit -n is {limit}", f"{wanted}")
    elif _below(limit, wanted):
        yield doubtful(f"ulimit -n is {limit}", f"{wanted}")


@check(
    "N008", "a user may have enough processes and threads", needs="node", any_run=True,
    why="threads count; at the limit Ray's workers fail with 'resource temporarily unavailable'",
    fix="run: ulimit -u unlimited (container: --pids-limit -1)",
)  # fmt: skip
def _tasks(facts: Facts) -> Iterator[Complaint]:
    limit, wanted = facts.machine.limits["nproc"], TASKS[facts.device]
    if _below(limit, wanted):
        yield doubtful(f"ulimit -u is {limit}", f"{wanted} or unlimited")


@check(
    "N009", "memory may be locked", needs="node", any_run=True,
    why="the optimizer's and the offloaded parameters' host copies are pinned, and the network card registers memory",
    fix="run: ulimit -l unlimited (container: --ulimit memlock=-1)",
)  # fmt: skip
def _locked(facts: Facts) -> Iterator[Complaint]:
    if facts.device == SIM:
        raise NoMatter
    limit = facts.machine.limits["memlock"]
    if limit is not None:
        yield doubtful(f"ulimit -l is {limit // 1024} KiB", "unlimited")


@check(
    "N010", "the run's ports are free on this node", needs="node",
    why="Ray, the launchers' meeting and HCCL listen on them; the second to come fails (vllm-ascend#405, #4725)",
    fix="end what listens there, or set [cluster] ray_port, dashboard_port or hccl_base_port",
)  # fmt: skip
def _ports(facts: Facts) -> Iterator[Complaint]:
    if facts.device == SIM:
        raise NoMatter  # its ports are chosen at the launch
    for purpose, ports in facts.ports.items():
        taken = sorted(facts.machine.listening & set(ports))
        if taken:
            yield bad(f"port {', '.join(map(str, taken))} ({purpose}) is in use", "a free port")


@check(
    "N011", "nobody is handed a port that HCCL will want", needs="node",
    why="the kernel gives ports of its ephemeral range to any outgoing connection; HCCL then finds its own taken, on "
        "some node, on some days",
    fix="set [cluster] hccl_base_port outside the range, or reserve the ports: "
        "sysctl -w net.ipv4.ip_local_reserved_ports=...",
)  # fmt: skip
def _ephemeral(facts: Facts) -> Iterator[Complaint]:
    if facts.device != NPU:
        raise NoMatter
    if facts.machine.ephemeral_ports is None:
        raise CannotTell("the kernel's range of ephemeral ports cannot be read")
    low, high = facts.machine.ephemeral_ports
    wanted = facts.config.cluster.hccl_ports
    if facts.machine.hands_out(wanted):
        ranges = f"HCCL's ports {wanted[0]} to {wanted[-1]}, ephemeral ports {low} to {high}"
        yield doubtful(ranges, "no port in both")


@check(
    "N012", "nothing of an earlier run is left on this node", needs="node",
    why="a worker that outlived its run holds dies, memory and ports",
    fix="end those processes yourself, by their ids, once you know them to be yours",
)  # fmt: skip
def _leftovers(facts: Facts) -> Iterator[Complaint]:
    for leftover in facts.machine.left_by_runs():
        yield doubtful(leftover, "none, unless that run is meant to go on")


@check(
    "N013", "no other Ray runs on this node", needs="node", any_run=True,
    why="the launcher leaves it alone, but both count the same dies, memory and shared memory as theirs",
    fix="wait for it, or stop it if it is yours: ray stop (never with --force on a shared machine)",
)  # fmt: skip
def _other_ray(facts: Facts) -> Iterator[Complaint]:
    pids = sorted(process.pid for process in facts.machine.processes if not process.run)
    if pids and facts.device != SIM:
        yield doubtful(f"daemons of another Ray (pid {', '.join(map(str, pids))})", "none")


@check(
    "N014", "the clock is kept right", needs="node", any_run=True,
    why="logs of many nodes are read side by side, and Ray's tokens and leases have times in them",
    fix="start a time service (chronyd, systemd-timesyncd)",
)  # fmt: skip
def _clock(facts: Facts) -> Iterator[Complaint]:
    if facts.config.cluster.nodes == 1 or facts.device == SIM:
        raise NoMatter
    if facts.machine.clock_set is None:
        raise CannotTell("the kernel does not say")
    if not facts.machine.clock_set:
        yield doubtful("the kernel's clock is not synchronised", "a time service")


@check(
    "N015", "the run's directories can be written to", needs="node", any_run=True,
    why="every process of the run writes its manifest and its log there",
    fix="correct the permissions, or set [run] output_dir and checkpoint_dir",
)  # fmt: skip
def _writable(facts: Facts) -> Iterator[Complaint]:
    for directory in dict.fromkeys((facts.paths.run_dir, facts.paths.checkpoints)):
        place = directory
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            yield bad(f"{place} is not a directory", f"a directory for {directory}")
        elif not os.access(place, os.W_OK | os.X_OK):
            yield bad(f"{place} cannot be written to", f"a directory of yours for {directory}")


@check(
    "N016", "the machine has a core for each of its dies", needs="node",
    why="each die has a process that prepares its operators; two of them on one core wait for each other",
    fix="give the container more cores",
)  # fmt: skip
def _cores(facts: Facts) -> Iterator[Complaint]:
    if facts.device == SIM:
        raise NoMatter
    if facts.machine.cpus < facts.config.cluster.dies_per_node:
        yield doubtful(f"{facts.machine.cpus} cores for {facts.config.cluster.dies_per_node} dies", "one each at least")


@check(
    "N017", "paths that every node reads are absolute", needs="static",
    why="a relative path is another file on a node where the launcher was called from elsewhere",
    fix="write the whole path",
)  # fmt: skip
def _absolute(facts: Facts) -> Iterator[Complaint]:
    if facts.config.cluster.nodes == 1:
        raise NoMatter
    for name, value in facts.config.paths.items():
        if not Path(value).expanduser().is_absolute():
            yield bad(f"{name} = {value}", "an absolute path")


@check(
    "N018", "the dies are of the hardware and have the memory that the run is planned for", needs="node",
    why="a node of another kind has other dies, and torch is offered less than a die's label says; a run notices when "
        "it is out of memory",
    fix="set [cluster] hardware to what the dies are, or hbm_gib_per_die to what torch is offered, and plan again",
)  # fmt: skip
def _die_memory(facts: Facts) -> Iterator[Complaint]:
    if facts.device == SIM:
        raise NoMatter  # its dies have what the run file says
    if facts.dies is None or facts.dies.untold:
        why = "nobody asked it" if facts.dies is None else facts.dies.untold
        raise CannotTell(f"torch does not say how much memory the dies have ({why})")
    if other := _other_hardware(facts):
        yield bad(f'[cluster] hardware = "{facts.config.cluster.hardware}" on a node of {facts.dies.text}', other)
        return
    planned, offered = facts.config.hbm_bytes_per_die, min(facts.dies.totals)
    if planned > MOST_BEYOND * offered:
        wanted, there = told_apart(planned, offered)
        yield bad(f"planned for dies of {wanted}", f"at most {there}, which is what torch is offered here")
    elif planned > offered:
        needed = facts.memory_on(offered)
        for phase in dict.fromkeys(phase for _, phase in needed.too_full):
            most = needed.worst(phase).total(phase) + needed.worst(phase).outside_total
            wanted, there = told_apart(most, offered)
            yield bad(f"{phase}: {wanted}", f"at most {there}, which is what torch is offered here")
        if not needed.cache.holds_one:
            there = size_text(offered)
            yield bad(f"on dies of {there} room for {needed.cache.tokens} tokens", f"at least {needed.cache.longest}")


def _other_hardware(facts: Facts) -> str:
    """What `[cluster] hardware` would be of the dies that torch sees here; "" where they are what it says, or where
    that cannot be told: of simulated dies, and of what the run file itself describes."""
    dies, hardware = facts.dies, facts.config.node_hardware
    if dies is None or not dies.totals or not dies.name or hardware is None or facts.config.cluster.hardware == CUSTOM:
        return ""
    seen = dies.hardware
    if seen == facts.config.cluster.hardware or (re.fullmatch(hardware.torch_name, dies.name) and seen is None):
        return ""
    return f'"{seen or CUSTOM}"'
