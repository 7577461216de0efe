# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe launch` as a shell sees it, when what surrounds the run goes wrong. The driver is a stand-in."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from recipe.command import run_command
from recipe.launch.errors import AlreadyFinished
from recipe.launch.processes import marked
from recipe.runfile.errors import ConfigError, LaunchError
from recipe.runfile.paths import REPO

HARNESS = Path(__file__).with_name("launch_with_stand_in.py")


class Launch:
    """Launches of one run, in a directory of their own. Those that a failed test leaves are ended."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.run_dir, self.go = directory, directory / "runs" / "sim", directory / "go"
        self.started: list[subprocess.Popen[str]] = []

    def start(self, steps: int = 3, wait_after: int = 0, fails: str = "", **options: Any) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "RECIPE_RUNS": str(self.directory / "runs"),
            "STAND_IN_STEP": str(wait_after),
            "STAND_IN_GO": str(self.go),
            "STAND_IN_FAILS": fails,
        }
        command = [sys.executable, str(HARNESS), "launch", str(REPO / "configs" / "sim.toml"), "--steps", str(steps)]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        self.started.append(subprocess.Popen(command, cwd=REPO, env=environment, text=True, **options))
        return self.started[-1]

    def steps(self) -> list[int]:
        file = self.run_dir / "metrics.jsonl"
        return [json.loads(line)["step"] for line in file.read_text().splitlines()] if file.is_file() else []

    def result(self) -> dict[str, Any]:
        return json.loads((self.run_dir / "result.json").read_text())

    @property
    def run_id(self) -> str:
        return json.loads((self.run_dir / "command.json").read_text())["environment"]["RECIPE_RUN_ID"]

    @property
    def temp(self) -> Path:
        """The temporary directory of the last launch."""
        return Path(json.loads((self.run_dir / "command.json").read_text())["environment"]["TMPDIR"]).parent

    def check_nothing_left(self) -> None:
        assert marked(self.run_id) == []
        assert not self.temp.exists()
        assert [path.name for path in self.run_dir.parent.iterdir() if path.name.endswith(".going")] == []
        assert list(self.run_dir.rglob("*.unfinished")) == []


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    made = Launch(tmp_path)
    yield made
    for launcher in made.started:
        if launcher.poll() is None:
            launcher.send_signal(signal.SIGCONT)
            launcher.terminate()
            launcher.communicate(timeout=60)


def until(condition: Callable[[], object], limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


def test_a_reader_that_has_seen_enough_does_not_end_the_run(launch: Launch) -> None:
    """As in `... | head -1`."""
    launcher = launch.start(wait_after=1)
    assert launcher.stdout is not None and launcher.stderr is not None
    first = launcher.stdout.readline()
    launcher.stdout.close()
    until(lambda: launch.steps() == [1])
    launch.go.touch()
    with launcher.stderr:
        assert (launcher.wait(60), launcher.stderr.read()) == (0, "")
    assert launch.steps() == [1, 2, 3] and launch.result()["status"] == "finished"
    log = (launch.run_dir / "logs" / "launcher.log").read_text()
    assert log.startswith(first) and "step 3 of 3" in log
    launch.check_nothing_left()


@pytest.mark.parametrize(("fails", "code"), [("", 0), ("no device", 1)])
def test_a_full_disk_under_the_output_does_not_end_the_run(launch: Launch, fails: str, code: int) -> None:
    with open("/dev/full", "w") as full:
        launch.go.touch()
        launcher = launch.start(wait_after=2, fails=fails, stdout=full, stderr=full)
        assert launcher.wait(60) == code
    assert launch.result()["status"] == ("failed" if fails else "finished")
    assert fails in str(launch.result()["error"])


def test_a_closed_terminal_does_not_end_the_run(launch: Launch) -> None:
    ours, theirs = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    terminal = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    launcher = launch.start(wait_after=1, preexec_fn=own_terminal, **terminal)
    os.close(theirs)
    until(lambda: launch.steps() == [1])
    os.close(ours)  # the kernel sends SIGHUP, and lets every write fail with EIO
    time.sleep(0.5)
    launch.go.touch()
    assert launcher.wait(60) == 0
    assert launch.steps() == [1, 2, 3] and launch.result()["status"] == "finished"


def test_what_was_ignored_at_the_start_stays_ignored(launch: Launch) -> None:
    """`nohup`, and the background jobs of a shell that is no terminal's."""

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    launcher = launch.start(wait_after=1, preexec_fn=ignore)
    until(lambda: launch.steps() == [1])
    launcher.send_signal(signal.SIGINT)
    launcher.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    launch.go.touch()
    output, error = launcher.communicate(timeout=60)
    assert (launcher.returncode, error) == (0, "") and "step 3 of 3" in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_signal_is_one_line(launch: Launch, number: signal.Signals, code: int) -> None:
    launcher = launch.start(wait_after=1)
    until(lambda: launch.steps() == [1])
    launcher.send_signal(number)
    _, error = launcher.communicate(timeout=60)
    assert (launcher.returncode, error) == (code, f"error: stopped by {number.name}\n")
    assert launch.result()["error"] == f"stopped by {number.name}"
    launch.check_nothing_left()


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2, 0.4, 0.7, 1.0])
def test_ctrl_c_in_the_first_second_is_one_line(tmp_path: Path, delay: float) -> None:
    """In the middle of imports, an exception may be printed and lost. Python names its imports on standard error."""
    launcher = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "recipe", "launch", "configs/sim.toml"],
        cwd=REPO, env={**os.environ, "RECIPE_RUNS": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert launcher.stderr is not None
        for line in launcher.stderr:  # from here on the process is ours; before it is Python's
            if "recipe.signals" in line:
                break
        until(lambda: _handles_sigterm(launcher.pid))
        time.sleep(delay)
        launcher.send_signal(signal.SIGINT)
        _, error = launcher.communicate(timeout=60)
    finally:
        launcher.terminate()
    errors = [line for line in error.splitlines() if not line.startswith("import time:")]
    assert (launcher.returncode, errors) == (130, ["error: stopped by SIGINT"])


def _handles_sigterm(pid: int) -> bool:
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return bool(int(status["SigCgt"], 16) & 1 << signal.SIGTERM - 1)


def has_ended(process: psutil.Process) -> bool:
    """Whether it runs no more; init may not have taken note of it yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_launcher_and_watchdog_are_killed_and_the_next_launch_ends_what_they_left(launch: Launch) -> None:
    launcher = launch.start(wait_after=1)
    until(lambda: launch.steps() == [1])
    first, temp = launch.run_id, launch.temp
    children = psutil.Process(launcher.pid).children()
    (watchdog,) = [child for child in children if "recipe.launch.watchdog" in child.cmdline()]
    watchdog.suspend()
    launcher.kill()
    launcher.communicate(timeout=60)
    time.sleep(0.5)
    assert len(marked(first)) == 2 and temp.is_dir(), "a driver and its child"

    second = launch.start()
    output, error = second.communicate(timeout=60)
    assert (second.returncode, error) == (0, ""), output
    assert "the last launch of this run was killed: ending what it has left running (2 processes)\n" in output
    assert marked(first) == [] and not temp.exists() and has_ended(watchdog)
    launch.check_nothing_left()


def test_a_halted_launcher_is_said_to_be_halted(launch: Launch) -> None:
    halted = launch.start(wait_after=1)
    until(lambda: launch.steps() == [1])
    halted.send_signal(signal.SIGSTOP)
    until(lambda: psutil.Process(halted.pid).status() == psutil.STATUS_STOPPED)
    second = launch.start()
    _, error = second.communicate(timeout=60)
    assert second.returncode == 1 and error.count("\n") == 1
    expected = f"error: another launcher (pid {halted.pid}) is at work on run sim, but halted (Ctrl-Z); `kill -CONT"
    assert expected in error
    halted.send_signal(signal.SIGCONT)
    launch.go.touch()
    assert halted.communicate(timeout=60)[1] == "" and halted.returncode == 0


SMALL = """
mount -t tmpfs -o size=130m none "$1" && cd "$1" || exit 99
RECIPE_RUNS="$1/runs" "${@:3}" 2>&1 &
until grep -q '"step": 1' runs/sim/metrics.jsonl 2>/dev/null; do sleep 0.1; done
cat /dev/zero >fill 2>/dev/null
touch "$2"
wait "$!"
code="$?"
cat runs/sim/result.json
echo "$code"
"""


@pytest.mark.small_disk
@pytest.mark.parametrize("fails", ["", "[Errno 28] No space left on device"])
def test_the_end_of_a_run_is_told_on_a_full_disk(launch: Launch, fails: str) -> None:
    disk, small = launch.directory / "disk", launch.directory / "small"
    disk.mkdir()
    small.write_text(SMALL)
    environment = {**os.environ, "STAND_IN_STEP": "1", "STAND_IN_GO": str(launch.go), "STAND_IN_FAILS": fails}
    environment["STAND_IN_REPORT"] = "1"
    command = ["unshare", "-rm", "bash", str(small), str(disk), str(launch.go), sys.executable, str(HARNESS), "launch"]
    done = subprocess.run(
        [*command, str(REPO / "configs" / "sim.toml"), "--steps", "2"], env=environment | {"PYTHONPATH": str(REPO)},
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    printed, _, rest = done.stdout.partition("{")
    result, code = json.loads("{" + rest.rpartition("}")[0] + "}"), done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr
    if fails:
        assert code == "1" and result["status"] == "failed"
        assert printed.splitlines()[-1] == f"error: {result['error']}"
        assert "after step 1: the driver failed with exit code 1: OSError: [Errno 28] No space left" in printed
    else:
        assert code == "0" and result["status"] == "finished", printed
        assert "warning: no report could be made (No space left on device); later `python -m recipe report " in printed


def refuse(error: Exception) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def test_the_exit_code_and_the_line_of_each_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: None, tmp_path) == 0
    assert run_command(refuse(AlreadyFinished("sim has finished 4 of 4 steps")), tmp_path) == 0
    assert capsys.readouterr() == ("sim has finished 4 of 4 steps\n", "")
    assert run_command(refuse(LaunchError("x")), tmp_path) == 1
    assert run_command(refuse(ConfigError("y")), tmp_path) == 2
    assert run_command(refuse(OSError(errno.ENOSPC, "No space left on device", "/a/b")), tmp_path) == 1
    assert run_command(refuse(PermissionError(errno.EACCES, "Permission denied", "/a/b")), tmp_path) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["error: x", "error: y"]
    assert lines[2].startswith("error: /a/b: No space left on device; make room there and type the same command again")
    assert lines[3].startswith("error: /a/b: Permission denied; run as the user it belongs to")
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_of_ours_is_one_line_and_a_traceback_in_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(refuse(KeyError("steps")), tmp_path / "logs") == 1
    file = tmp_path / "logs" / "launcher-error.log"
    assert capsys.readouterr().err == (
        f"error: a mistake in the launcher, please report it with {file}: KeyError: 'steps'\n"
    )
    assert "Traceback (most recent call last)" in file.read_text()
