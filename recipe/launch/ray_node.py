# SPDX-License-Identifier: Apache-2.0
"""The part of Ray that one node runs: how it is started, how its end is noticed.

`ray start --block` stays the parent of this node's Ray and ends with it. All its processes carry the run's mark
(`recipe.launch.processes`), by which they are ended; another Ray on the machine has other ports, another directory and
no mark.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from recipe.launch.network import is_loopback
from recipe.launch.ray_start import TIMED_OUT, Retry
from recipe.runfile.errors import LaunchError
from recipe.runfile.overrides import OBJECT_STORE_BYTES, SPARE_CPUS
from recipe.runfile.ports import DAEMON_OPTIONS, NodePorts
from recipe.runfile.schema import CUDA, RunConfig
from recipe.text import plain

POLL_S = 0.2
# Ray itself gives up on a daemon that does not come up after about a minute.
START_S = 180.0
_STARTED = "Ray runtime started."
# The longest pause before Ray is started again.
PAUSE_S = 10.0


def start_command(
    config: RunConfig, name: str, address: str, ports: NodePorts, temp: Path, gcs: str | None, dashboard: bool
) -> list[str]:
    """`ray start` for one node.

    Args:
        config: the run.
        name, address: of this node.
        ports: its ports.
        temp: Ray's directory on this node.
        gcs: ADDRESS:PORT of the head to join; None on the head itself.
        dashboard: serve Ray's dashboard, on 127.0.0.1 (head only).
    """
    cluster = config.cluster
    resources = ["--num-gpus", str(cluster.dies_per_node)]
    if cluster.device != CUDA:
        resources = ["--resources", json.dumps({"NPU": cluster.dies_per_node})]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address", address, "--node-name", name, "--temp-dir", str(temp), *resources]
    if gcs is None:
        command += ["--head", "--port", str(cluster.ray_port), "--include-dashboard", str(dashboard).lower()]
        if dashboard:
            command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(cluster.dashboard_port)]
    else:
        command += ["--address", gcs]
    if config.simulated:
        command += ["--num-cpus", str(cluster.dies_per_node + SPARE_CPUS)]
        command += ["--object-store-memory", str(OBJECT_STORE_BYTES)]
    for number, option in enumerate(DAEMON_OPTIONS):
        # Ray serves clients on the head only, where gRPC's Python package is installed; else the option is an error.
        if option != "ray-client-server-port" or (gcs is None and importlib.util.find_spec("grpc") is not None):
            command += [f"--{option}", str(ports.base + number)]
    command += ["--min-worker-port", str(ports.workers.start), "--max-worker-port", str(ports.workers.stop - 1)]
    return command


def authentication(token: Path) -> dict[str, str]:
    """The environment that makes Ray demand the token in `token`; empty where this Ray cannot (before 2.52)."""
    if ray_version() < (2, 52):
        return {}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}


def require_dashboard() -> None:
    """Raise LaunchError, with what to install, where Ray has not the packages that its dashboard is made with."""
    try:
        importlib.import_module("ray.dashboard.optional_deps")
    except ImportError as error:
        raise LaunchError(
            f"--dashboard needs the packages of ray[default], and {error.name} is not installed; run: "
            f'pip install "ray[default]=={importlib.metadata.version("ray")}" (or leave --dashboard out)'
        ) from None


def ray_version() -> tuple[int, int]:
    major, minor = importlib.metadata.version("ray").split(".")[:2]
    return int(major), int(minor)


def address_environment(address: str, nodes: int) -> dict[str, str]:
    """The environment that makes Ray and vLLM use this node's address.

    Ray takes 127.0.0.1 for a mistake and uses another address instead, unless it is told that it is one machine's; the
    switch is named for the systems where that is the default, and with it no other node can join. vLLM takes the
    address from which the internet would be reached: on a node with several networks not that of the cluster.
    """
    one_machine = nodes == 1 and is_loopback(address)
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0" if one_machine else "1", "VLLM_HOST_IP": address}


class RayNode:
    """One node's Ray. The caller ends it, by the mark in `environment`."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._command, self._environment, self._log = command, dict(environment), log
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with open(self._log, "wb") as output:
            return subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def started(self) -> bool:
        return _STARTED in self._text()

    def wait_started(self, alarm: Callable[[], str | None] = lambda: None, retry: Retry | None = None) -> None:
        """Wait until this node is part of the cluster.

        Args:
            alarm: says what else is wrong, None while nothing is; asked all the time.
            retry: how it is started again where Ray's own limit has ended it.

        Raises:
            LaunchError: it did not start, in one line with Ray's reason; or what `alarm` says.
        """
        start, tries = time.monotonic(), 1
        while not self.started:
            problem = self.problem() or alarm()
            if problem is None and time.monotonic() > start + START_S:
                problem = f"Ray did not start within {START_S:.0f} s (log: {self._log})"
            if problem is not None and retry is not None and self._too_slow() and time.monotonic() < retry.end:
                tries += 1
                retry.say(f"Ray's own limit of 30 s has ended its start; starting it again (try {tries})")
                retry.clean()
                self._pause(alarm)
                self._log.replace(self._log.with_name(f"{self._log.stem}.{tries - 1}{self._log.suffix}"))
                self._process = self._start()
                start = time.monotonic()
            elif problem is not None:
                raise LaunchError(problem)
            time.sleep(POLL_S)

    def _too_slow(self) -> bool:
        return self._process.poll() is not None and TIMED_OUT in self._text()

    def _pause(self, alarm: Callable[[], str | None]) -> None:
        """Wait for a time that differs from node to node, as starting all at one moment is what made them too slow."""
        end = time.monotonic() + random.uniform(0, PAUSE_S)
        while time.monotonic() < end:
            if problem := alarm():
                raise LaunchError(problem)
            time.sleep(POLL_S)

    def problem(self) -> str | None:
        """Why this node's Ray has ended; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        verb = "ended" if self.started else "did not start"
        return f"its Ray {verb}: {self._cause() or f'exit code {code}'} (log: {self._log})"

    def _cause(self) -> str | None:
        lines = [plain(line) for line in self._text().splitlines()]
        exits = [line for line in lines if re.search(r"\[exit code=", line)]
        errors = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception)\b", line)]
        causes = [*errors, *exits] or [line for line in lines if "ERR " in line or "PANIC" in line]
        return re.sub(r"^[\d-]+ [\d:,]+\s+\w+ \S+ -- ", "", causes[-1]).strip() if causes else None

    def _text(self) -> str:
        try:
            return self._log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
