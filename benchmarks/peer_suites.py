# SPDX-License-Identifier: Apache-2.0
"""Tests that others wrote, run on the simulated NPU and the overlay, and compared with a recorded list.

    python benchmarks/peer_suites.py --op-plugin DIR --torch-npu DIR --vllm-ascend DIR --megatron DIR --verl DIR

Each DIR is a checkout of yours, at the commit that docs/PEERS.md names (another one is warned of); nothing is written
into it and nothing is copied from it. Without an option its suite is left out. Every test gets one verdict:

  passed          as on the hardware that its authors had
  refused         the simulator says by name that it has not, or does not take, what the test wants
  not applicable  needs what no simulator has (compiled kernels, a network, GPUs), or another torch
  wrong           all else: another value, another error, a process that ended, no end

The reasons and the tests that do not pass are in benchmarks/peer_records/. The exit code is 1 when a test is wrong or
differs from the record, 2 when the suite cannot run. Needs the environment that scripts/setup.sh makes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.peer_verdicts import (  # noqa: E402
    VERDICTS,
    WRONG,
    Judged,
    Record,
    RecordError,
    differences,
    file_of,
    judge,
    read_record,
    write_record,
)
from recipe.sources.pins import read_pins  # noqa: E402

UPSTREAM = Path(os.environ.get("RECIPE_UPSTREAM") or REPOSITORY / "upstream")
PROGRESS_EVERY_S = 10.0
# A file is collected, and a process ended, within this many seconds.
START_LIMIT_S = 240.0
CASE_MARK = "@"


class CannotRun(Exception):
    """Something the user has to see to first."""


@dataclass(frozen=True)
class Suite:
    """Tests of one upstream.

    globs: files with tests, as patterns in the checkout.  ranks: numbers of processes, the files are run with each, and
    where there are several, with as many devices.
    preload: what is imported before a file is.  on_path: whether the checkout itself is importable.
    needs: packages beyond our requirements.  limit_s: seconds for one test.  data: directories of the checkout that
    tests look for in the working directory.
    """

    name: str
    pin: tuple[str, str]
    globs: tuple[str, ...]
    ranks: tuple[int, ...] = (1,)
    preload: tuple[str, ...] = ("torch_npu",)
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    on_path: bool = False
    needs: tuple[str, ...] = ()
    device_name: str = ""
    limit_s: float = 120.0
    data: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        return self.name.replace("-", "_")

    def files(self, checkout: Path) -> list[str]:
        """Files with tests, relative to the checkout, in the order of the globs."""
        found = [str(path.relative_to(checkout)) for glob in self.globs for path in sorted(checkout.glob(glob))]
        if not found:
            raise CannotRun(f"no tests of {self.name} in {checkout}: nothing fits {' or '.join(self.globs)}")
        return list(dict.fromkeys(found))


def upstream_pin(name: str) -> tuple[str, str]:
    """(what it is called, commit) of one of our own upstreams."""
    pin = read_pins(REPOSITORY / "upstreams.toml").profile("a3").pin(name)
    assert pin is not None
    return pin.version, pin.commit


OVERLAY = ("torch_npu", "verl_patches.prelude_patch")
# The tests of operators that CANN 8.2.RC1 has; torch_npu's own helpers for them are of the same release.
OP_PLUGIN_PIN = ("branch 7.1.0", "57c52665a1e1b007f10a3dbce00d37929c3c851a")
TORCH_NPU_PIN = ("v7.1.0-pytorch2.5.1", "5f020c4e6bbe114ce7a38c985da561e399b9c1c4")

# What the sim profile runs; the commit of the a3 profile is an ancestor whose tests are not all of one mind with it.
VLLM_ASCEND_PIN = ("v0.9.1", "0740d10211fcdcaa00d29e8659d7de892f5ed4d8")


def suites() -> tuple[Suite, ...]:
    return (
        Suite(
            "op-plugin",
            OP_PLUGIN_PIN,
            # Of the directories for one version of torch, that of our pin.
            ("test/test_custom_ops/test_*.py", "test/test_v2r5_ops/test_*.py", "test/test_base_ops/test_*.py"),
            limit_s=300.0,
            options=("-o", "python_functions="),  # they are classes; functions of these names are helpers
            needs=("expecttest",),
            # Nine in ten of them skip themselves elsewhere. The operators of 910B and of A3's 910_93 are the same.
            device_name="Ascend910B",
        ),
        Suite(
            "vllm-ascend",
            VLLM_ASCEND_PIN,
            ("tests/ut/**/test_*.py", "tests/ops/test_*.py", "tests/singlecard/**/test_*.py"),
            preload=(*OVERLAY, "vllm_ascend"),
            environment={"VLLM_USE_V1": "1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn", "VLLM_LOGGING_LEVEL": "ERROR"},
            on_path=True,
            needs=("pytest_mock",),
        ),
        Suite(
            "verl",
            upstream_pin("verl"),
            ("tests/**/test_*_on_cpu.py",),
            preload=(*OVERLAY, "verl"),
            options=("-o", "asyncio_mode=auto"),
            on_path=True,
            needs=("pytest_asyncio",),
            data=("verl/trainer/config", "tests/trainer/config", "scripts"),
            limit_s=300.0,
        ),
        Suite(
            "megatron",
            upstream_pin("megatron-core"),
            # What a training run of ours is made of comes first.
            (
                "tests/unit_tests/tensor_parallel/test_*.py",
                "tests/unit_tests/transformer/**/test_*.py",
                "tests/unit_tests/pipeline_parallel/test_*.py",
                "tests/unit_tests/distributed/test_*.py",
                "tests/unit_tests/**/test_*.py",
            ),
            ranks=(1, 2, 4),
            preload=(*OVERLAY, "torch_npu.contrib.transfer_to_npu", "megatron.core"),
            needs=("six",),
            on_path=True,
            limit_s=180.0,
        ),
    )


@dataclass
class Run:
    """One suite of one checkout, and what has come of it so far."""

    suite: Suite
    checkout: Path
    directory: Path
    record: Record
    only: str = ""
    limit_s: float = 0.0
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    finished: set[tuple[str, int]] = field(default_factory=set)
    begun: float = field(default_factory=time.monotonic)
    ran: int = 0
    workers: set[subprocess.Popen[str]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def scratch(self) -> Path:
        """Where tests run, and where their temporary files are."""
        return self.directory / "scratch" / self.suite.name

    @property
    def results_file(self) -> Path:
        """With --only another one: what a whole run has found stays."""
        return self.directory / (f"{self.suite.name}.only.jsonl" if self.only else f"{self.suite.name}.jsonl")

    def jobs(self) -> list[tuple[str, int]]:
        return [
            (file, ranks)
            for file in self.suite.files(self.checkout)
            for ranks in self.suite.ranks
            if not self.only or fits_file(self.only, case(f"{file}::", ranks))
        ]

    def unseen(self) -> list[str]:
        """Files that are not finished, as the record names them."""
        return [file_of(case(f"{job[0]}::", job[1])) for job in self.jobs() if job not in self.finished]

    def resume(self) -> None:
        """Take over what an interrupted run has written; of a file that it did not finish, the tests it did."""
        if not self.results_file.is_file():
            return
        for line in self.results_file.read_text("utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # it was being written when the run was interrupted
                continue
            if "test" in entry:
                self.results[entry["test"]] = entry
            else:
                self.finished.add((entry["file"], entry["ranks"]))

    def judged(self) -> list[Judged]:
        chosen = (self.results[test] for test in sorted(self.results))
        return [judge(one, self.record.reasons) for one in chosen if not self.only or fits(self.only, one["test"])]

    def note(self, entry: dict[str, Any]) -> None:
        with self.lock, self.results_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            if "test" in entry:
                self.results[entry["test"]] = entry
                self.ran += 1
            else:
                self.finished.add((entry["file"], entry["ranks"]))


def case(test: str, ranks: int) -> str:
    """A test's name with its number of processes, where there is more than one: FILE@2::TEST."""
    file, _, rest = test.partition("::")
    return f"{file}{CASE_MARK}{ranks}::{rest}" if ranks > 1 else test


def bare(test: str) -> str:
    file, _, rest = test.partition("::")
    return f"{file.partition(CASE_MARK)[0]}::{rest}"


def fits(pattern: str, test: str) -> bool:
    return fnmatchcase(test, f"*{pattern}*")


def fits_file(pattern: str, name: str) -> bool:
    """Whether tests of this file can fit: a pattern may name a test after ::."""
    return fits(pattern.partition("::")[0], name)


def linked_simulator(torch_npu: Path, directory: Path) -> Path:
    """A directory with a `torch_npu` of links: the simulator's own files, and the checkout's helpers for tests.

    The simulator has no `torch_npu.testing`. Its `__init__`, which changes torch's own lists for another torch, is
    left out.
    """
    spec = find_spec("torch_npu")
    if spec is None or spec.origin is None:
        raise CannotRun("the simulated NPU is not installed; scripts/setup.sh does it (or pip install ./npu_sim)")
    simulator, target = Path(spec.origin).parent, directory / "torch_npu"
    links = {path: target / path.name for path in simulator.iterdir() if path.name not in ("utils", "__pycache__")}
    links |= {path: target / "utils" / path.name for path in (simulator / "utils").glob("*.py")}
    helpers = sorted((torch_npu / "torch_npu" / "testing").glob("*.py"))
    if not helpers:
        raise CannotRun(f"{torch_npu} has no torch_npu/testing; --torch-npu wants a checkout of Ascend/pytorch")
    links |= {path: target / "testing" / path.name for path in helpers if path.name != "__init__.py"}
    for name in ("_path_manager.py", "_error_code.py"):
        links[torch_npu / "torch_npu" / "utils" / name] = target / "utils" / name
    for source, link in links.items():
        link_to(link, source)
    return directory


def link_to(link: Path, source: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    link.symlink_to(source.resolve())


def check_commit(checkout: Path, pin: tuple[str, str], option: str) -> str:
    """The checkout's commit; a warning on stderr unless it is the pin, unchanged."""
    called, wanted = pin

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    if not checkout.is_dir():
        raise CannotRun(f"--{option}: {checkout} is not a directory")
    found = git("rev-parse", "HEAD") if (checkout / ".git").exists() else ""
    if found != wanted:
        is_at = f"at {found}" if found else "not a git checkout, nobody knows of which commit"
        print(f"warning: --{option} {checkout} is {is_at}; recorded is {wanted} ({called})", file=sys.stderr)
    elif git("status", "--porcelain", "--untracked-files=no"):
        print(f"warning: --{option} {checkout} has changed files", file=sys.stderr)
    return found


def environment(run: Run, torch_npu: Path | None) -> dict[str, str]:
    suite = run.suite
    path = [str(REPOSITORY), str(UPSTREAM)]
    if torch_npu is not None and suite.name == "op-plugin":
        path.insert(0, str(linked_simulator(torch_npu, run.directory / "simulator")))
    if suite.on_path:
        path.append(str(run.checkout))
    (run.scratch / "tmp").mkdir(parents=True, exist_ok=True)
    for name in suite.data:
        link_to(run.scratch / name, run.checkout / name)
    own = {
        "PYTHONPATH": os.pathsep.join(path),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONDONTWRITEBYTECODE": "1",  # nothing is written into the checkout
        "PYTHONHASHSEED": "0",
        "TMPDIR": str(run.scratch / "tmp"),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "TORCHDYNAMO_DISABLE": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "RECIPE_"))}
    return inherited | own | suite.environment


def check_needs(suite: Suite) -> None:
    missing = [name for name in suite.needs if find_spec(name) is None]
    if missing:
        names = " ".join(name.replace("_", "-") for name in missing)
        raise CannotRun(f"the tests of {suite.name} need what is not installed: pip install {names}")


def work(run: Run, jobs: queue.SimpleQueue[tuple[str, int]], variables: dict[str, str]) -> None:
    """Give files to one worker process, a new one when it ends, until there are none left."""
    suite = run.suite
    told = json.dumps({"preload": suite.preload, "device_name": suite.device_name})
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "peer_worker.py"), told]
    log = run.directory / f"{suite.name}.worker.log"
    while True:
        with log.open("a") as errors, subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables,
            cwd=run.scratch, bufsize=1,
        ) as worker:  # fmt: skip
            run.workers.add(worker)
            try:
                for job in iter_queue(jobs):
                    if not do(run, worker, *job):
                        break
                else:
                    return
            finally:
                worker.terminate()
                run.workers.discard(worker)
        if not run.ran:
            raise CannotRun(f"the worker of {suite.name} ended at once; what it said is in {log}")


def iter_queue(jobs: queue.SimpleQueue[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    while True:
        try:
            yield jobs.get_nowait()
        except queue.Empty:
            return


def not_run(record: Record, file: str, ranks: int) -> list[str]:
    """The patterns of tests that are known to be too much for this, as the file's own names."""
    patterns = (pattern for reason in record.reasons if not reason.run for pattern in reason.tests)
    return [pattern for pattern in patterns if fnmatchcase(case(f"{file}::", ranks), file_of(pattern) + "::")]


def do(run: Run, worker: subprocess.Popen[str], file: str, ranks: int) -> bool:
    """Run one file. False when the worker itself is gone."""
    assert worker.stdin is not None and worker.stdout is not None
    logs = run.directory / "logs" / run.suite.name
    logs.mkdir(parents=True, exist_ok=True)
    mine = [test for test in run.results if file_of(test) == file_of(case(f"{file}::", ranks))]
    job = {
        "file": file, "root": str(run.checkout), "done": [bare(test) for test in mine],
        "ranks": ranks, "devices": ranks if len(run.suite.ranks) > 1 else 0,
        "limit": run.limit_s or run.suite.limit_s, "start_limit": START_LIMIT_S, "options": run.suite.options,
        "scratch": str(run.scratch), "not_run": not_run(run.record, file, ranks),
        "log": str(logs / (case(f"{file}::", ranks).removesuffix("::").replace("/", ".") + ".log")),
    }  # fmt: skip
    try:
        worker.stdin.write(json.dumps(job) + "\n")
        for line in worker.stdout:
            entry = json.loads(line)
            if "test" not in entry:
                run.note({"file": file, "ranks": ranks})
                return True
            run.note(entry | {"test": case(entry["test"], ranks)})
    except BrokenPipeError:
        pass
    return False


def run_suite(run: Run, torch_npu: Path | None, jobs_at_once: int, say: Callable[[str], None]) -> None:
    """Run what is left to run, with a line of progress now and then."""
    todo = [job for job in run.jobs() if job not in run.finished]
    jobs: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    for job in todo:
        jobs.put(job)
    variables = environment(run, torch_npu)
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work(run, jobs, variables)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, daemon=True) for _ in range(min(jobs_at_once, len(todo)))]
    for thread in threads:
        thread.start()
    said = time.monotonic()
    try:
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.2)
            if time.monotonic() - said >= PROGRESS_EVERY_S:
                said = time.monotonic()
                say(progress(run, len(todo), sum(job not in run.finished for job in todo)))
    except KeyboardInterrupt:
        with contextlib.suppress(queue.Empty):
            while True:
                jobs.get_nowait()
        for worker in list(run.workers):
            worker.terminate()
            worker.wait()
        raise
    if failures:
        raise failures[0]


def progress(run: Run, files: int, left: int) -> str:
    elapsed = time.monotonic() - run.begun
    with run.lock:
        counts = Counter(judge(one, run.record.reasons).verdict for one in run.results.values())
    done = files - left
    rest = f"about {elapsed / done * left / 60:.0f} min left" if done else "time left: not known yet"
    shown = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    return f"{run.suite.name}: {done} of {files} files, {shown}; {run.ran / elapsed:.1f} tests/s, {rest}"


def outcome(run: Run) -> dict[str, Any]:
    """What the suite came to, as it is printed with --json."""
    judged = run.judged()
    counts = Counter(one.verdict for one in judged)
    reasons = Counter(one.reason for one in judged if one.reason)
    return {
        "counts": {verdict: counts[verdict] for verdict in VERDICTS},
        "reasons": dict(reasons.most_common()),
        "wrong": [
            {key: run.results[one.test].get(key, "") for key in ("test", "outcome", "error", "says")}
            for one in judged
            if one.verdict == WRONG
        ],
        "differences": differences(judged, run.record, not run.only and not run.unseen()),
        "files_left": len(run.unseen()),
        "seconds": round(sum(run.results[one.test]["seconds"] for one in judged), 1),
    }


def show(run: Run, came_to: dict[str, Any]) -> Iterable[str]:
    name, counts = run.suite.name, came_to["counts"]
    total = sum(counts.values())
    left = f" ({came_to['files_left']} files are still to be run)" if came_to["files_left"] else ""
    yield f"\n{name}: {total} tests{left}, " + ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    whys = {reason.name: reason for reason in run.record.reasons}
    for reason, number in came_to["reasons"].items():
        yield f"  {number:5d} {whys[reason].verdict}, {reason}: {whys[reason].why}"
    for one in came_to["wrong"]:
        says = " ".join(one["says"].split())[:200]
        yield f"  WRONG {one['test']}: {one['outcome']}, {one['error']}: {says}"
    for line in came_to["differences"]:
        yield f"  DIFFERS {line}"
    if came_to["wrong"] or came_to["differences"]:
        yield (
            f"  What to do: read the traceback in {run.directory}/logs/{name}/ and run one test again with "
            f"--only 'FILE::TEST'.\n  A fault of the simulator is repaired there. What is right is written down: a "
            f"reason in\n  benchmarks/peer_records/{run.suite.option}.toml, and the tests with --resume --record."
        )
    elif total:
        yield "  as recorded"
    if unseen := [file for file in run.record.unseen if not run.only]:
        yield f"  {len(unseen)} files are not recorded yet: not compared"


def list_files(chosen: Iterable[Run]) -> None:
    for run in chosen:
        jobs = run.jobs()
        recorded = Counter(file_of(test) for test in run.record.single_tests)
        recorded.update({file: number for file, (_, number) in run.record.whole_files.items()})
        print(f"{run.suite.name}: {len(jobs)} files")
        for file, ranks in jobs:
            name = file_of(case(f"{file}::", ranks))
            known = f"  ({recorded[name]} recorded as not passing)" if recorded[name] else ""
            print(f"  {name}{known}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for suite in suites():
        called = f"checkout at {suite.pin[0]} ({suite.pin[1][:12]})"
        parser.add_argument(f"--{suite.name}", type=Path, metavar="DIR", help=called)
    parser.add_argument(
        "--torch-npu", type=Path, metavar="DIR", help=f"checkout of Ascend/pytorch at {TORCH_NPU_PIN[0]}"
    )
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="tests whose name has this in it; * and ? are known"
    )
    parser.add_argument("--list", action="store_true", help="say which files there are, and run nothing")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run was")
    parser.add_argument("--report", action="store_true", help="run nothing, and say what the results so far come to")
    parser.add_argument("--record", action="store_true", help="write what came out into the record")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs" / "peer_suites", metavar="DIR",
                        help="results and logs (default: runs/peer_suites)")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="files at the same time (default: 1)")
    parser.add_argument("--limit", type=float, default=0.0, metavar="S", help="seconds for one test, on a slow machine")
    return parser.parse_args(arguments)


def chosen_runs(options: argparse.Namespace) -> list[Run]:
    chosen = []
    for suite in suites():
        checkout = getattr(options, suite.option)
        if checkout is None:
            continue
        check_commit(checkout, suite.pin, suite.name)
        if suite.name == "op-plugin" and not options.list:
            if options.torch_npu is None:
                raise CannotRun(
                    f"the tests of op-plugin import torch_npu.testing, which the simulator has not; name a checkout of "
                    f"Ascend/pytorch at {TORCH_NPU_PIN[0]} with --torch-npu"
                )
            check_commit(options.torch_npu, TORCH_NPU_PIN, "torch-npu")
        if not options.list:
            check_needs(suite)
        record = read_record(suite.option)
        chosen.append(Run(suite, checkout.resolve(), options.out.resolve(), record, options.only, options.limit))
    if not chosen:
        raise CannotRun("name at least one checkout, such as --op-plugin DIR --torch-npu DIR (--help)")
    if options.record and options.only:
        raise CannotRun("--record writes the record of a whole suite; leave --only out")
    return chosen


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    # A background job of a shell ignores Ctrl-C.
    for interrupt in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interrupt, signal.default_int_handler)
    came_to: dict[str, Any] = {}
    try:
        chosen = chosen_runs(options)
        if options.list:
            list_files(chosen)
            return 0
        options.out.mkdir(parents=True, exist_ok=True)
        for run in chosen:
            if options.resume or options.report:
                run.resume()
            else:
                run.results_file.unlink(missing_ok=True)
            if not options.report:
                run_suite(run, options.torch_npu and options.torch_npu.resolve(), options.jobs,
                          lambda line: print(line, file=sys.stderr, flush=True))  # fmt: skip
            if options.record:
                print(f"written: {write_record(run.suite.option, run.judged(), run.unseen())}", file=sys.stderr)
                run.record = read_record(run.suite.option)
            came_to[run.suite.name] = outcome(run)
            if not options.json:
                print("\n".join(show(run, came_to[run.suite.name])), flush=True)
    except (CannotRun, RecordError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command with --resume goes on from here", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(came_to, indent=1))
    return 1 if any(one["wrong"] or one["differences"] for one in came_to.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
