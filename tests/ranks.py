# SPDX-License-Identifier: Apache-2.0
"""Jobs of several ranks: a process for each, forked from one that has imported everything once.

python -m tests.ranks MODULE...: imports these; then, for each job that it reads from its input, forks a process per
rank that calls `run(job, rank)` of the last of them, and prints `ANSWER` and the numbers of the ranks that failed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
ANSWER = "ranks that failed: "


def free_port() -> int:
    """Below those that the kernel hands out: by the time that rank 0 listens, such a one may be another's."""
    for port in random.SystemRandom().sample(range(20000, 30000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("none of 100 ports is free")


class Ranks:
    """The process that forks the ranks of jobs; it starts with the first job, in that one's environment.

    Args:
        modules: what it imports, that of the ranks last.
        log: what it says itself.
    """

    def __init__(self, *modules: str, log: Path) -> None:
        self._modules, self._log = modules, log
        self._process: subprocess.Popen[str] | None = None

    def run(self, job: Mapping[str, Any], out: Path, *, ranks: int, limit_s: float, **environment: str) -> None:
        """Have so many ranks do a job, each with its output in `<out>.<rank>.log`.

        Raises:
            AssertionError: one failed, or they took too long; with the ends of their output.
        """
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
        asked = {"job": job, "out": str(out), "ranks": ranks, "limit_s": limit_s, "environment": environment | shared}
        failed = self._ask(json.dumps(asked), environment)
        ends = [f"--- rank {rank}\n{Path(f'{out}.{rank}.log').read_text()[-4000:]}" for rank in failed]
        assert not failed, f"ranks {failed} failed, or were not through in {limit_s} s:\n" + "\n".join(ends)

    def close(self) -> None:
        """End the process; it has no ranks between two jobs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def _ask(self, line: str, environment: Mapping[str, str]) -> list[int]:
        if self._process is None:
            with self._log.open("w") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.ranks", *self._modules], env={**os.environ, **environment}, cwd=REPO,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        for told in self._process.stdout:  # what is imported prints there too
            if told.startswith(ANSWER):
                return list(json.loads(told.removeprefix(ANSWER)))
        raise AssertionError(self._log.read_text()[-4000:])


def fork(module: Any, asked: dict[str, Any], rank: int) -> int:
    """A process for one rank; returns its number."""
    child = os.fork()
    if child:
        return child
    try:
        log = os.open(f"{asked['out']}.{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(asked["environment"] | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        module.run(asked["job"], rank)
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    sys.exit()  # in order: what the rank itself has forked is ended with it


def run_ranks(module: Any, asked: dict[str, Any]) -> list[int]:
    """All ranks of a job, until they are through, one has failed, or time is up; those that were not through."""
    running = {fork(module, asked, rank): rank for rank in range(asked["ranks"])}
    deadline, failed = time.monotonic() + asked["limit_s"], []
    while running:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            rank = running.pop(child)
            if status:
                failed.append(rank)
        elif failed or time.monotonic() > deadline:
            # A rank that fails leaves the others waiting for it.
            failed += [] if failed else sorted(running.values())
            for left in running:
                os.kill(left, signal.SIGKILL)
                os.waitpid(left, 0)
            break
        else:
            time.sleep(0.05)
    return failed


def main() -> None:
    *_, module = [importlib.import_module(name) for name in sys.argv[1:]]
    # What is imported by now lives as long as every rank: none of them need look through it for garbage.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        failed = run_ranks(module, json.loads(line))
        print(ANSWER + json.dumps(failed), flush=True)


if __name__ == "__main__":
    main()
