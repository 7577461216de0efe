# SPDX-License-Identifier: Apache-2.0
"""This machine as plain data: what the checks look at. Read-only, Linux, and no package beyond Python's own.

What cannot be read here (another system, a container that hides it) is None, and the checks say so. What fails to be
read for another reason raises `CannotTell` in each check that looks at it, and in no other.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import re
import resource
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipe.checks.crash import account, asks_to_stop
from recipe.checks.finding import CannotTell
from recipe.sizes import size_text

RUN_ID = "RECIPE_RUN_ID"
_UNLIMITED = resource.RLIM_INFINITY
# Daemons of a Ray node, by the name of their program.
RAY_DAEMONS = ("gcs_server", "raylet")


@dataclass(frozen=True)
class Process:
    """A process that belongs to a run or to Ray. `run` is its run's id, "" for none that can be seen."""

    pid: int
    name: str
    run: str


@dataclass(frozen=True)
class Machine:
    """One machine; sizes in bytes, limits as soft limits where None means unlimited.

    `failed`: why a value could not be read, by its name; to look at such a value is a CannotTell.
    """

    host: str
    python: tuple[int, int, int]
    packages: Mapping[str, str]
    environ: Mapping[str, str]
    cpus: int
    memory: int | None
    memory_available: int | None
    shm_free: int | None
    limits: Mapping[str, int | None]
    dies: int
    gpus: int
    driver: str | None
    interfaces: Mapping[str, str]
    listening: frozenset[int]
    ephemeral_ports: tuple[int, int] | None
    clock_set: bool | None
    now: float
    processes: tuple[Process, ...]
    path: tuple[str, ...]
    free_bytes: Callable[[Path], int | None] = field(default=lambda path: free_bytes(path))
    failed: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.failed:
            object.__delattr__(self, name)

    def __getattr__(self, name: str) -> Any:
        """Called for what is not there."""
        reason = self.__dict__.get("failed", {}).get(name)
        if reason is None:
            raise AttributeError(name)
        raise CannotTell(reason)

    def version(self, package: str) -> str | None:
        """The installed version of a distribution."""
        return self.packages.get(canonical(package))

    def left_by_runs(self) -> Iterator[str]:
        """A phrase for each run of this recipe that has processes here."""
        runs: dict[str, list[int]] = {}
        for process in self.processes:
            if process.run:
                runs.setdefault(process.run, []).append(process.pid)
        for name, pids in runs.items():
            shown = ", ".join(map(str, sorted(pids)[:8])) + (" ..." if len(pids) > 8 else "")
            yield f"{len(pids)} processes of run {name} (pid {shown})"

    def hands_out(self, ports: range) -> bool:
        """Whether the kernel may give one of these ports to an outgoing connection; False where that is not known."""
        return self.ephemeral_ports is not None and (
            ports[0] <= self.ephemeral_ports[1] and ports[-1] >= self.ephemeral_ports[0]
        )


def this_machine() -> Machine:
    """What can be read of this machine, in a fraction of a second."""
    values: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for name, read in _readings().items():
        try:
            values[name] = read()
        except BaseException as error:
            if asks_to_stop(error):
                raise
            values[name], failed[name] = None, account(error)
    return Machine(**values, failed=failed)


def _readings() -> dict[str, Callable[[], Any]]:
    """How each value of a machine is read."""
    return {
        "host": socket.gethostname,
        "python": lambda: sys.version_info[:3],
        "packages": installed,
        "environ": lambda: dict(os.environ),
        "cpus": lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory": _memory_total,
        "memory_available": lambda: _meminfo("MemAvailable"),
        "shm_free": lambda: free_bytes(Path("/dev/shm")) if Path("/dev/shm").is_dir() else None,
        "limits": lambda: {
            name: _limit(getattr(resource, f"RLIMIT_{name.upper()}")) for name in ("nofile", "nproc", "memlock")
        },
        "dies": lambda: len(device_files("davinci")),
        "gpus": lambda: len(device_files("nvidia")),
        "driver": _driver,
        "interfaces": _interfaces,
        "listening": lambda: frozenset(_listening()),
        "ephemeral_ports": _ephemeral_ports,
        "clock_set": _clock_set,
        "now": time.time,
        "processes": lambda: tuple(_processes()),
        "path": lambda: tuple(sys.path),
    }


def known_size(size: int | None) -> str:
    """Bytes as a person reads them; "?" for what could not be read."""
    return "?" if size is None else size_text(size)


def canonical(package: str) -> str:
    """The name of a distribution as the index spells it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def installed() -> dict[str, str]:
    """Distribution -> version, of what this Python would import."""
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            versions.setdefault(canonical(name), distribution.version)
    return versions


def device_files(name: str, directory: Path = Path("/dev")) -> list[Path]:
    """The device files davinci0, davinci1, ... of the NPUs, one for each die, or nvidia0, ... of the GPUs."""
    return sorted(file for file in directory.glob(f"{name}*") if re.fullmatch(rf"{name}[0-9]+", file.name))


def free_bytes(path: Path) -> int | None:
    """Free bytes of the file system that holds `path`, or would."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def _text(file: str | Path) -> str | None:
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _meminfo(name: str) -> int | None:
    match = re.search(rf"^{name}:\s+(\d+) kB", _text("/proc/meminfo") or "", re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _memory_total() -> int | None:
    """The machine's memory, or the container's limit when that is lower."""
    total = _meminfo("MemTotal")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = (_text(file) or "").strip()
        if total is not None and limit.isdigit():
            total = min(total, int(limit))
    return total


def _limit(kind: int) -> int | None:
    soft, _ = resource.getrlimit(kind)
    return None if soft == _UNLIMITED else soft


def _driver(file: Path = Path("/usr/local/Ascend/driver/version.info")) -> str | None:
    match = re.search(r"^Version=(\S+)", _text(file) or "", re.MULTILINE)
    return match[1] if match else None


def _interfaces() -> dict[str, str]:
    """Interface -> its IPv4 address, "" for one without."""
    import fcntl
    import struct

    addresses = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for _, name in socket.if_nameindex():
            try:
                request = struct.pack("256s", name.encode()[:15])
                answer = fcntl.ioctl(handle.fileno(), 0x8915, request)  # SIOCGIFADDR
                addresses[name] = socket.inet_ntoa(answer[20:24])
            except OSError:
                addresses[name] = ""
    return addresses


def _listening() -> Iterator[int]:
    """TCP ports that something listens on, on any address."""
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in (_text(file) or "").splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == "0A":  # TCP_LISTEN
                yield int(fields[1].rpartition(":")[2], 16)


def _ephemeral_ports() -> tuple[int, int] | None:
    ends = (_text("/proc/sys/net/ipv4/ip_local_port_range") or "").split()
    return (int(ends[0]), int(ends[1])) if len(ends) == 2 else None


def _clock_set() -> bool | None:
    """Whether the kernel says that something keeps its clock right (adjtimex(2), which only reads with modes 0)."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        # struct timex is 208 bytes on 64-bit Linux; its first field, modes, is 0.
        state = libc.adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != 5  # TIME_ERROR


def _processes(proc: Path = Path("/proc")) -> Iterator[Process]:
    """Processes that carry a run's mark, and the daemons of any Ray."""
    own = _ancestors(proc)
    for directory in proc.glob("[0-9]*"):
        pid = int(directory.name)
        if pid in own:
            continue
        try:
            environ = (directory / "environ").read_bytes()
        except OSError:
            environ = b""  # another user's, or gone
        match = re.search(rb"(?:^|\0)" + RUN_ID.encode() + rb"=([^\0]+)", environ)
        name = (_text(directory / "comm") or "").strip()
        if match or name in RAY_DAEMONS:
            yield Process(pid, name, match[1].decode("utf-8", "replace") if match else "")


def _ancestors(proc: Path) -> set[int]:
    """This process and those it was started from: a preflight that a launcher asked for is no leftover."""
    ancestors, pid = set(), os.getpid()
    while pid > 0 and pid not in ancestors:
        ancestors.add(pid)
        match = re.search(r"^PPid:\s+(\d+)", _text(proc / str(pid) / "status") or "", re.MULTILINE)
        pid = int(match[1]) if match else 0
    return ancestors
