# SPDX-License-Identifier: Apache-2.0
"""What `scripts/test.sh --fast` runs of pytest's tests, as a plugin: whatever turns out to be quick.

Nobody marks a test as fast. A test, or a test file, ends where it imports one of HEAVY, starts a process or takes too
long, and counts as left out, not as failed; the end of the run says how many were, and why.
"""

from __future__ import annotations

import os.path
import signal
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import hypothesis
import pytest

# Packages whose import takes seconds.
HEAVY = {
    *("torch", "torch_npu", "transformers", "ray", "verl", "vllm", "vllm_ascend", "megatron", "mindspeed"),
    "matplotlib",
}
# Over in an instant.
QUICK_PROGRAMS = {"git"}
# What a test and each of its fixtures' set-ups may take: of the processor, and by the clock, as a machine may be busy.
LONGEST = (0.1, 1.0)
# Of a property, for which the suite tries a hundred.
EXAMPLES = 5
_STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}
_TIMERS = (signal.ITIMER_PROF, signal.ITIMER_REAL)


class LeftOut(pytest.skip.Exception):
    """Passes every `except Exception` of the code under test."""


class _Watch:
    """Ends what reaches for what takes long, while a test or the import of a test file is being watched."""

    def __init__(self) -> None:
        self.watching = False
        self.reason: str | None = None

    @contextmanager
    def over(self, seconds: tuple[float, float]) -> Iterator[None]:
        """Watch the block, within so many CPU and wall seconds (0: any); `reason` says why something was left out."""
        # Again and again: a finalizer or a callback of C code loses what is raised in it, and an import is let finish.
        for timer, length in zip(_TIMERS, seconds, strict=True):
            signal.setitimer(timer, length, 0.05)
        self.watching = True
        try:
            yield
        finally:
            self.watching = False
            for timer in _TIMERS:
                signal.setitimer(timer, 0)

    def leave_out(self, reason: str) -> None:
        self.reason = self.reason or reason
        raise LeftOut(self.reason, allow_module_level=True)

    def on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        """For `sys.addaudithook`."""
        if not self.watching:
            return
        if event == "import":
            package = arguments[0].partition(".")[0]
            if package in HEAVY:
                self.leave_out(f"import {package}")
        elif event in _STARTS:
            quick = event == "subprocess.Popen" and os.path.basename(os.fsdecode(arguments[0])) in QUICK_PROGRAMS
            if not quick:
                self.leave_out("start processes")

    def on_time(self, number: int, frame: FrameType | None) -> None:
        """For `signal.signal`."""
        if self.watching and not _within_import(frame):
            self.leave_out("take long")


def _within_import(frame: FrameType | None) -> bool:
    """Whether a module is being executed, which some bear only once in a process."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


_watch = _Watch()


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.register_profile("fast", hypothesis.settings.default, max_examples=EXAMPLES)
    hypothesis.settings.load_profile("fast")
    config.addinivalue_line("filterwarnings", "ignore::ResourceWarning")  # what is ended leaves its files open
    sys.addaudithook(_watch.on_event)
    signal.signal(signal.SIGPROF, _watch.on_time)
    signal.signal(signal.SIGALRM, _watch.on_time)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, Any]:
    _watch.reason = None
    with _watch.over((0, 0)):
        report = yield
    return _marked(report)


def pytest_runtest_logstart() -> None:
    _watch.reason = None


# Not over a test's end: what it has made is taken away in full.
@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    with _watch.over(LONGEST):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    with _watch.over(LONGEST):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # What a fixture of several tests was left out for is raised to each of them.
    if call.excinfo is not None and isinstance(call.excinfo.value, LeftOut):
        _watch.reason = _watch.reason or call.excinfo.value.msg
    return report if call.when == "teardown" and report.passed else _marked(report)


def _marked(report: Any) -> Any:
    """The report of what was left out says so, whatever became of it: the code under test may have caught the end."""
    if _watch.reason is not None:
        report.outcome, report.left_out = "skipped", _watch.reason
        report.longrepr = (report.nodeid, 0, _watch.reason)  # xdist tells the same one only once
    return report


def pytest_report_teststatus(report: Any) -> tuple[str, str, str] | None:
    return ("left out", "", "LEFT OUT") if getattr(report, "left_out", None) else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    # With several processes each has collected, and a test that was left out late has three reports.
    reasons = {
        (isinstance(report, pytest.CollectReport), report.nodeid): report.left_out
        for report in reports
        if getattr(report, "left_out", None)
    }
    terminalreporter.section("LEFT OUT", yellow=True)
    for of_files, what in ((True, "test files"), (False, "tests of other files")):
        counts = Counter(reason for (is_file, _), reason in reasons.items() if is_file is of_files)
        for reason, count in sorted(counts.items()):
            terminalreporter.write_line(f"{count} {what} {reason}")
