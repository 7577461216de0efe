# SPDX-License-Identifier: Apache-2.0
"""Several nodes on this machine: scripts/launch.sh started on addresses of the loopback interface.

For pytest a module, for the .bats files a command (`main`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

REPO = Path(__file__).resolve().parents[2]
HEAD = "127.0.0.2"
# Ports one node needs, with room, and where to look for them: below what Linux hands out to clients.
WIDTH = 80
CANDIDATES = range(21000, 30000, 400)


@dataclass
class Nodes:
    """What is started here is stopped by `end`, whatever became of it; as a context manager also what they left is."""

    directory: Path
    python: Path | None = None
    base: int = 0
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.base = self.base or free_base()
        self.runs = self.directory / "runs"

    def run_file(self, config: str = "sim.toml", **changes: str) -> Path:
        """A run file of one die a node; `changes` replace or add `key = value` lines, by the section and the key."""
        text = (REPO / "configs" / config).read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line.partition("=")[0].strip() not in changes]
        added: dict[str, list[str]] = {section: [] for section in ("cluster", *SECTIONS.values())}
        added["cluster"].append(f"ray_port = {self.base}")
        for key, value in changes.items():
            section = SECTIONS.get(key, "cluster")
            added[section].append(f"{key} = {value}")
        out = []
        for line in lines:
            out.append(line)
            out += added.pop(line.partition("]")[0].lstrip("["), []) if line.startswith("[") else []
        path = self.directory / "run.toml"
        path.write_text("\n".join(out) + "\n", encoding="utf-8")
        return path

    def start(
        self,
        file: Path,
        number: int = 1,
        *options: str,
        runs: Path | None = None,
        preflight: bool = False,
        **environment: str,
    ) -> subprocess.Popen[str]:
        """Start the launcher of node `number`, whose address is 127.0.0.(number + 1); the first one leads."""
        arguments = [*place(self.base, number), *([] if preflight else ["--no-preflight"]), *options]
        command = ["bash", str(REPO / "scripts" / "launch.sh"), str(file), *arguments]
        added = {"RECIPE_RUNS": str(runs or self.runs), "RECIPE_TOKEN_FILE": str(self.directory / "token")}
        if self.python is not None:
            added["RECIPE_VENV"] = str(self.python.parents[1])
        self.started.append(
            subprocess.Popen(
                command,
                env={**os.environ, **added, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return self.started[-1]

    def end(self) -> None:
        for launcher in self.started:
            if launcher.poll() is None:
                launcher.terminate()
        for launcher in self.started:
            try:
                launcher.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                launcher.kill()
                launcher.communicate()

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()
        left = marked_in(self.directory)
        for process in left:
            process.kill()
        assert left == []


SECTIONS = {
    **dict.fromkeys(("name", "steps", "save_every", "validate_every", "setup_deadline_s", "step_deadline_s"), "run"),
    "warm_start_steps": "model",
    "prompts_per_step": "train",
    "expert_parallel": "actor",
    "validation_samples": "rollout",
    "temperature": "rollout",
    "max_batched_tokens": "rollout",
}


def free_base() -> int:
    """The first of a range of free ports, with room for five nodes."""
    return next(base for base in CANDIDATES if all(map(_free, range(base, base + 5 * WIDTH))))


def place(base: int, number: int) -> list[str]:
    """The options that make a launcher node `number` of the run whose ports begin at `base`; the first one leads."""
    if number == 1:
        return ["--head", HEAD]
    own = ["--worker", "--address", f"127.0.0.{number + 1}", "--ports", str(base + (number - 1) * WIDTH)]
    return ["--head", HEAD, *own]


def stand_in_python(directory: Path) -> Path:
    """An interpreter for scripts/launch.sh that runs the recipe with a stand-in for the trainer."""
    python = directory / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    harness = Path(__file__).with_name("recipe_with_stand_in.py")
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{harness}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return python


def end_of(launcher: subprocess.Popen[str], limit_s: float = 120) -> tuple[int, str]:
    """Exit code and everything it said."""
    output, _ = launcher.communicate(timeout=limit_s)
    return launcher.returncode, output


def until(condition: Callable[[], object], launchers: Sequence[subprocess.Popen[str]], limit_s: float = 90) -> None:
    """Wait for `condition`; the launchers must live meanwhile."""
    end = time.monotonic() + limit_s
    while not condition():
        for launcher in launchers:
            assert launcher.poll() is None, launcher.communicate()[0]
        assert time.monotonic() < end, "timed out"
        time.sleep(0.2)


def marked_in(directory: Path) -> list[psutil.Process]:
    """The processes of runs whose directory is `directory` or below it, the oldest first."""
    found = []
    for process in psutil.process_iter(["name", "create_time"]):
        try:
            run_dir = process.environ().get("RECIPE_RUN_DIR")
        except (psutil.Error, OSError):
            continue
        if run_dir and Path(run_dir).is_relative_to(directory):
            found.append(process)
    return sorted(found, key=lambda process: process.info["create_time"])


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HEAD, port)) != 0


def foreign_ray(temp: Path) -> None:
    """A Ray that no launcher started, on 127.0.0.9, until this process is told to end or its parent is gone."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address", "127.0.0.9", "--port", "0", "--include-dashboard", "false"]
    command += ["--num-cpus", "1", "--object-store-memory", "80000000", "--temp-dir", str(temp)]
    parent = os.getppid()
    told: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: told.append(number))
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    ray = subprocess.Popen(command, env=environment, start_new_session=True)
    started: list[psutil.Process] = []
    while os.getppid() == parent and ray.poll() is None and not told:
        started = psutil.Process(ray.pid).children(recursive=True)
        time.sleep(0.5)
    for process in [*started, ray]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    ray.wait()


def main(command: str, *arguments: str) -> None:
    """For the shell.

    `new DIR` makes the stand-in's interpreter in DIR/venv and prints the first of free ports; `run-file DIR BASE
    KEY=VALUE ...` writes DIR/run.toml; `place BASE NUMBER` prints options, one a line; `of DIR` prints pid and name of
    each process of the runs below DIR, the oldest first; `kill DIR` does so and kills them; `ray DIR` is another
    Ray, until it is ended; `daemons PID` prints pid and start time of the daemons of the Ray that process PID started.
    """
    if command == "new":
        stand_in_python(Path(arguments[0]))
        print(free_base())
    elif command == "run-file":
        changes = dict(change.split("=", 1) for change in arguments[2:])
        Nodes(Path(arguments[0]), base=int(arguments[1])).run_file(**changes)
    elif command == "place":
        print(*place(int(arguments[0]), int(arguments[1])), sep="\n")
    elif command in ("of", "kill"):
        for process in marked_in(Path(arguments[0])):
            print(process.pid, process.info["name"])
            if command == "kill":
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
    elif command == "ray":
        foreign_ray(Path(arguments[0]))
    elif command == "daemons":
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(int(arguments[0])).children(recursive=True):
                if process.name() in ("gcs_server", "raylet"):
                    print(process.pid, process.create_time())
    else:
        raise SystemExit(f"unknown command {command}")


if __name__ == "__main__":
    main(*sys.argv[1:])
