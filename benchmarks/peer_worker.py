# SPDX-License-Identifier: Apache-2.0
"""The process that runs files of tests, each in forks of its own, and says as JSON lines what came of each test.

Started by `peer_suites.py`. It imports what every test needs once (torch and the simulator take seconds), reads jobs
from stdin, one JSON line each, and answers on stdout:

    {"file": "tests/test_a.py", "root": "/checkout", "ranks": 2, "devices": 2, "done": [...], "not_run": ["*[huge]"],
     "limit": 60, "start_limit": 300, "log": "/out/a.log", "scratch": "/out/scratch", "options": ["--experimental"]}
    {"test": "tests/test_a.py::test_b", "outcome": "failed", "error": "ValueError", "says": "...", "seconds": 0.1}
    {"file": "tests/test_a.py"}

A test that ends its process (outcome "crashed") or is over the limit of processor seconds ("late") costs itself only:
the file is run again from the test after it. With several ranks, each rank is a process of the same group, and a test
is as bad as on its worst rank; once one rank has failed, all have a few seconds to come to the end of the test. If none
does, as when others wait for one that has given up, what the first has failed with is told all the same.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import operator
import os
import random
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import psutil

# Worst last.
OUTCOMES = ("passed", "skipped", "failed", "late", "crashed")
# How long the ranks may take to end a test that one of them has failed.
GRACE_S = 10.0
# Enough of a message for the rules; tracebacks of child processes stand in the middle of some.
SAYS_HEAD, SAYS_TAIL = 600, 1400
SEED = 0
# Who uses less of a processor for so long waits for something that will not come: the threads of hundreds of gloo
# groups that look for work in vain use less than this.
IDLE_SHARE, IDLE_S = 0.02, 60.0


class Recorder:
    """A pytest plugin: writes the begin and the outcome of each test as a JSON line to `descriptor`."""

    def __init__(self, descriptor: int, done: list[str], not_run: list[str]) -> None:
        self.descriptor, self.done, self.not_run = descriptor, set(done), not_run
        self.current: dict[str, Any] = {}
        self.errors = 0  # in collecting

    def send(self, **line: Any) -> None:
        os.write(self.descriptor, (json.dumps(line) + "\n").encode())

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid not in self.done]
        for item in [item for item in items if any(fnmatchcase(item.nodeid, one) for one in self.not_run)]:
            items.remove(item)
            self.send(test=item.nodeid, outcome="skipped", error="NotRun", says="", seconds=0.0)

    def pytest_collectreport(self, report: Any) -> None:
        if report.outcome == "passed" or f"{report.nodeid}::" in self.done:
            return
        self.errors += 1
        says = str(report.longrepr[2]) if report.outcome == "skipped" else str(report.longrepr)
        line = {"test": f"{report.nodeid}::", "outcome": report.outcome, "seconds": 0.0}
        self.send(begin=line["test"])
        self.send(**line, error=last_error(says), says=shorten(says))

    def pytest_runtest_setup(self) -> None:
        """The same random inputs in each run, whatever ran before."""
        random.seed(SEED)
        for name, seed in (("numpy", "random.seed"), ("torch", "manual_seed")):
            if name in sys.modules:
                operator.attrgetter(seed)(sys.modules[name])(SEED)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.current = {"test": nodeid, "outcome": "passed", "error": "", "says": "", "seconds": 0.0}
        self.send(begin=nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.send(**self.current)

    def pytest_exception_interact(self, node: Any, call: Any, report: Any) -> None:
        if report.when in ("setup", "call", "teardown"):
            self.current |= {"error": call.excinfo.type.__name__, "says": shorten(str(call.excinfo.value))}
            self.send(failing=self.current | {"outcome": "failed"})

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.current["seconds"] = round(self.current["seconds"] + report.duration, 3)
        if hasattr(report, "wasxfail"):  # failed as its authors expect
            return
        if OUTCOMES.index(report.outcome) > OUTCOMES.index(self.current["outcome"]):
            self.current["outcome"] = report.outcome
        if report.outcome == "skipped":
            self.current |= {"error": "Skipped", "says": shorten(str(report.longrepr[2]))}


def shorten(says: str) -> str:
    if len(says) <= SAYS_HEAD + SAYS_TAIL:
        return says
    return f"{says[:SAYS_HEAD]} ... {says[-SAYS_TAIL:]}"


def last_error(traceback: str) -> str:
    """The class of the error that a printed traceback ends with; "CollectionError" when none is found."""
    for line in reversed(traceback.splitlines()):
        name, _, _ = line.removeprefix("E ").strip().partition(":")
        if name.replace(".", "").replace("_", "").isalnum() and name.endswith(("Error", "Exception", "Warning")):
            return name.rpartition(".")[2]
    return "CollectionError"


def free_port() -> int:
    """Below those that the kernel hands out: by the time that rank 0 listens, such a one may be another's."""
    for port in random.SystemRandom().sample(range(20000, 30000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError("none of 100 ports is free")


def start(job: dict[str, Any], done: list[str], rank: int, port: int) -> tuple[int, int]:
    """Fork one rank that runs the file's tests but those of `done`; its process id and where to read from it."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    try:
        os.setsid()  # what the tests start ends with them
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(read)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for target, descriptor in ((0, null), (1, log), (2, log)):
            os.dup2(descriptor, target)
        for descriptor in (log, null):
            os.close(descriptor)
        faulthandler.enable()
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(job["ranks"])}
        os.environ |= {"LOCAL_WORLD_SIZE": str(job["ranks"]), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        if job["devices"]:
            os.environ["ASCEND_RT_VISIBLE_DEVICES"] = ",".join(map(str, range(job["devices"])))
        sys.argv = [job["file"]]
        os.chdir(job["scratch"])
        run_pytest(job, write, done)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def run_pytest(job: dict[str, Any], write: int, done: list[str]) -> None:
    import pytest

    own = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly", "--tb=long", "-c", os.devnull]
    own += ["--import-mode=prepend", f"--rootdir={job['root']}", f"--basetemp={job['scratch']}/pytest-{os.getpid()}"]
    recorder = Recorder(write, done, job["not_run"])
    said_before = os.path.getsize(job["log"])
    code = pytest.main([*own, *job["options"], str(Path(job["root"], job["file"]))], plugins=[recorder])
    if code not in (0, 1, 5) and not recorder.errors:  # such as a conftest.py that cannot be imported
        sys.stdout.flush()
        sys.stderr.flush()
        with open(job["log"], errors="replace") as log:
            log.seek(said_before)
            says = log.read()
        recorder.send(begin=f"{job['file']}::")
        line = {"test": f"{job['file']}::", "outcome": "failed", "seconds": 0.0}
        recorder.send(**line, error=last_error(says), says=shorten(says))
    recorder.send(end=True)


class Group:
    """The ranks that run one file at the same time, and what they have said so far."""

    def __init__(self, job: dict[str, Any], done: list[str]) -> None:
        port = free_port()
        self.job = job
        started = [start(job, done, rank, port) for rank in range(job["ranks"])]
        self.pids = [pid for pid, _ in started]
        self.pipes = [pipe for _, pipe in started]
        self.rests = [b""] * len(started)
        self.ended = [False] * len(started)
        self.running: dict[int, str] = {}
        self.failing: dict[str, dict[str, Any]] = {}
        self.results: dict[str, list[dict[str, Any]]] = {}
        self.selector = selectors.DefaultSelector()
        for rank, pipe in enumerate(self.pipes):
            self.selector.register(pipe, selectors.EVENT_READ, rank)
        self.allow(job["start_limit"])

    def lines(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """(rank, what it said) until all pipes are closed; (rank, None) when one closes; (-1, None) at the deadline."""
        while self.selector.get_map():
            ready = self.selector.select(max(0.0, self.deadline - time.monotonic()))
            if not ready:
                if self.still_working():
                    continue
                yield -1, None
                return
            for key, _ in ready:
                rank = key.data
                data = os.read(self.pipes[rank], 65536)
                if not data:
                    self.selector.unregister(self.pipes[rank])
                    yield rank, None
                    continue
                *whole, self.rests[rank] = (self.rests[rank] + data).split(b"\n")
                for line in whole:
                    yield rank, json.loads(line)
                if all(self.ended):
                    return

    def still_working(self) -> bool:
        """Whether the limit, which is one of processor time, is not used up; if so, the deadline is put off.

        Wall time says little on a machine that others use as well. Who waits for ever uses no processor.
        """
        used = processor_seconds(self.pids)
        left = self.allowed - (used - self.used_before)
        working = used - self.used_last > IDLE_SHARE * (time.monotonic() - self.looked_last)
        self.used_last, self.looked_last = used, time.monotonic()
        if working and left > 0:
            self.deadline = time.monotonic() + max(1.0, min(left, IDLE_S))
        return working and left > 0

    def allow(self, seconds: float) -> None:
        """From now on, so many seconds."""
        self.allowed, self.looked_last = seconds, time.monotonic()
        self.deadline = self.looked_last + min(seconds, IDLE_S)
        self.used_before = self.used_last = processor_seconds(self.pids)

    def finished(self) -> Iterator[dict[str, Any]]:
        """Results of tests, the worst of the ranks' each, in the order they come to their end."""
        for rank, line in self.lines():
            if line is None:
                if rank >= 0 and self.ended[rank]:
                    continue
                yield from self.broken(rank)
                return
            if "begin" in line:
                self.running[rank] = line["begin"]
                if not self.results:  # else others are behind, and their time runs
                    self.allow(self.job["limit"])
            elif "failing" in line:
                self.failing.setdefault(line["failing"]["test"], line["failing"])
                self.allow(GRACE_S)
            elif "end" in line:
                self.ended[rank] = True
            else:
                self.running.pop(rank, None)
                said = self.results.setdefault(line["test"], [])
                said.append(line)
                if len(said) == len(self.pids):
                    del self.results[line["test"]]
                    yield worst(said)
                elif line["outcome"] == "failed":
                    self.allow(GRACE_S)
            if not self.running and not self.results:
                self.allow(self.job["start_limit"])
        for said in self.results.values():  # tests that not all ranks have
            yield worst(said)

    def broken(self, rank: int) -> Iterator[dict[str, Any]]:
        """What is to be said of the tests that were running when a rank ended, or was late."""
        behind = list(self.results.items())
        for test, said in behind:
            yield worst(said)
            self.running = {one: name for one, name in self.running.items() if name != test}
        if behind and not self.running:
            return
        how = "late" if rank < 0 else "crashed"
        late = f"over its limit of {self.job['limit']:g} s of processor time, or idle for {IDLE_S:g} s"
        says = late if rank < 0 else self.how_it_ended(rank)
        for test in dict.fromkeys(self.running.values()) or [f"{self.job['file']}::"]:
            told = {"test": test, "outcome": how, "error": how, "says": says, "seconds": 0.0}
            yield self.failing.get(test, told) if rank < 0 else told

    def how_it_ended(self, rank: int) -> str:
        _, status = os.waitpid(self.pids[rank], 0)
        self.pids[rank] = 0
        code = os.waitstatus_to_exitcode(status)
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def stop(self) -> None:
        for pid in self.pids:
            if pid:
                for kill in (os.killpg, os.kill):
                    try:
                        kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                os.waitpid(pid, 0)
        for pipe in self.pipes:
            os.close(pipe)
        self.selector.close()


def processor_seconds(pids: list[int]) -> float:
    """What these processes and their children have used of a processor; the busiest process counts."""
    used = [0.0]
    for pid in filter(None, pids):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            for one in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    used.append(sum(one.cpu_times()[:4]))
    return max(used)


def worst(said: list[dict[str, Any]]) -> dict[str, Any]:
    chosen = max(said, key=lambda line: OUTCOMES.index(line["outcome"]))
    return chosen | {"seconds": max(line["seconds"] for line in said)}


def run_file(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The results of all tests of a file. What ends, or is late, outside of any test is a result named FILE::."""
    done = list(job["done"])
    while True:
        group = Group(job, done)
        try:
            for result in group.finished():
                done.append(result["test"])
                yield result
        finally:
            group.stop()
        if all(group.ended) or done[-1].endswith("::"):
            return


def stand_for(device_name: str) -> None:
    """Let `torch.npu.get_device_name` say this: tests skip themselves on the names they do not know.

    As on any device before A3 (torch_npu 2.5.1-7.1.0, csrc/core/npu/sys_ctrl/npu_sys_ctrl.cpp), tensors may be cast to
    private formats.
    """
    import torch

    torch.npu.get_device_name = lambda device=None: device_name
    torch.npu.config.allow_internal_format = True


def main() -> None:
    suite = json.loads(sys.argv[1])
    for name in suite["preload"]:
        importlib.import_module(name)
    if suite["device_name"]:
        stand_for(suite["device_name"])
    # The tests that run end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # What the tests' processes print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        job = json.loads(line)
        for result in run_file(job):
            answers.write(json.dumps(result) + "\n")
        answers.write(json.dumps({"file": job["file"]}) + "\n")


if __name__ == "__main__":
    main()
