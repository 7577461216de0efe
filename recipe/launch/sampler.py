# SPDX-License-Identifier: Apache-2.0
"""Looks at the processes of a run every two seconds: their memory, and whether a worker has gone."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import Any

import psutil

from recipe.launch.processes import alive, marked, ray_workers, resident_by_name
from recipe.recorder import EVENTS, append_line
from recipe.runfile.paths import RunPaths

SAMPLE_S = 2.0
# The class of the actors in which verl puts model and rollout of a die.
WORKER = "WorkerDict"


class Sampler(threading.Thread):
    """Writes the resident memory of the run's processes to the events, and notices workers that disappear."""

    def __init__(self, paths: RunPaths) -> None:
        super().__init__(daemon=True)
        self._paths = paths
        self._done = threading.Event()
        # By pid and time of creation, which psutil compares: another process with that pid is another worker.
        self._workers: set[psutil.Process] = set()
        self._lost: dict[int, float] = {}
        self.start()

    def run(self) -> None:
        file = self._paths.run_dir / EVENTS / "launcher.jsonl"
        while not self._done.wait(SAMPLE_S):
            processes = marked(self._paths.run_id)
            self._notice_lost(processes)
            names = resident_by_name(processes)
            event: dict[str, Any] = {
                "time": time.time(),
                "pid": os.getpid(),
                "rank": None,
                "kind": "processes",
                "count": len(processes),
                "rss": sum(names.values()),
                "rss_by_name": names,
            }
            with contextlib.suppress(OSError):  # a full disk; these figures only describe the run
                append_line(file, event)

    def _notice_lost(self, processes: list[psutil.Process]) -> None:
        ended = {worker for worker in self._workers if not alive(worker)}
        for worker in ended:
            self._lost.setdefault(worker.pid, time.monotonic())
        self._workers = self._workers - ended | set(ray_workers(processes, WORKER))

    def lost_for(self) -> float:
        """Seconds since the first worker disappeared; 0 when none did."""
        return time.monotonic() - min(self._lost.values()) if self._lost else 0.0

    def lost_text(self) -> str:
        return f" after worker {', '.join(str(pid) for pid in self._lost)} disappeared" if self._lost else ""

    def stop(self) -> None:
        self._done.set()
        self.join()
