# SPDX-License-Identifier: Apache-2.0
"""scripts/setup.sh and quickstart.sh with a stand-in Python: order, interruption, two at once, what failed and why."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

REPO = Path(__file__).resolve().parents[2]
# A Python that only writes down what it is asked for. FAKE_<what> says how that ends: a line for the log and exit
# code 1, or "hang".
FAKE = r"""#!/bin/bash
note() { printf '%s\n' "$*" >>"$FAKE_LOG"; }
end() {
    case "$1" in
        "") exit 0 ;;
        hang) sleep 600 & note "pid $!"; wait ;;
        *) printf '%s\n' "$1"; exit 1 ;;
    esac
}
case "$*" in
    *"sys.version_info"*) echo "${FAKE_VERSION:-3.11}" ;;
    *"import pip"*) [[ -f "$(dirname "$0")/pip" ]] ;;
    "-m venv "*)
        note venv
        mkdir -p "$3/bin"
        cp "$0" "$3/bin/python"
        [[ -n "${FAKE_VENV:-}" ]] && end "$FAKE_VENV"
        touch "$3/bin/pip"
        ;;
    *" --check") note check; end "${FAKE_CHECK:-}" >&2 ;;
    *" --prepare") note prepare; end "${FAKE_PREPARE:-}" ;;
    "-m recipe sync"*) note sync; end "${FAKE_SYNC:-}" ;;
    "-m recipe launch"*) note run ;;
    *" show -q torch"*) exit 1 ;;
    *" --extra-index-url "*) note torch; end "${FAKE_TORCH:-}" ;;
    *" wheel "*) note wheel ;;
    *" install "*first.txt) note first; end "${FAKE_FIRST:-}" ;;
    *" install "*requirements-sim.txt) note second; end "${FAKE_SECOND:-}" ;;
    *" install "*) note install ;;
esac
"""


class SetUp:
    """Scripts that run with the stand-in, in an environment of their own."""

    def __init__(self, directory: Path) -> None:
        python = directory / "a python"
        python.write_text(FAKE, encoding="utf-8")
        python.chmod(0o755)
        self.venv, self.log = directory / "venv", directory / "log"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "RECIPE_PYTHON": str(python),
            "RECIPE_VENV": str(self.venv),
            "RECIPE_MIN_MEMORY_MIB": "1",
            "FAKE_LOG": str(self.log),
        }

    def start(self, name: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(REPO / "scripts" / name), *arguments],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, name: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(name, *arguments, **environment)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    @property
    def asked(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").split("\n")[:-1] if self.log.exists() else []

    def wait_for(self, word: str) -> str:
        """The line of the stand-in's log that begins with `word`."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            found = [line for line in self.asked if line.startswith(word)]
            if found:
                return found[0]
            time.sleep(0.05)
        raise AssertionError(f"the stand-in was never asked for {word}: {self.asked}")

    @staticmethod
    def ended(pid: int) -> bool:
        """Whether the process ends within seconds; one that init has not reaped yet has."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    return True
            except psutil.NoSuchProcess:
                return True
            time.sleep(0.05)
        return False


@pytest.fixture
def set_up(tmp_path: Path) -> SetUp:
    return SetUp(tmp_path)


def test_a_second_set_up_makes_nothing_again(set_up: SetUp) -> None:
    code, out, err = set_up.run("setup.sh")
    assert (code, err) == (0, ""), out
    assert sorted(set_up.asked) == ["first", "install", "second", "sync", "venv", "wheel"]
    set_up.log.unlink()
    code, out, err = set_up.run("setup.sh")
    assert code == 0 and out.endswith("setup: ready\n") and set_up.asked == []


def test_a_bad_run_file_is_told_before_anything_is_installed(set_up: SetUp) -> None:
    code, _, err = set_up.run("quickstart.sh", FAKE_CHECK="error: the run file is bad")
    assert code == 1 and err == "error: the run file is bad\n"
    assert set_up.asked == ["venv", "check"]


def test_the_options_reach_the_look_the_model_and_the_run(set_up: SetUp) -> None:
    code, _, err = set_up.run("quickstart.sh", "--steps", "2", "--name", "a b")
    assert (code, err) == (0, "")
    assert set_up.asked[:2] == ["venv", "check"] and set_up.asked[-1] == "run" and "prepare" in set_up.asked


def test_what_failed_is_one_line(set_up: SetUp) -> None:
    code, _, err = set_up.run("setup.sh", FAKE_SECOND="ERROR: No matching distribution found for ray==2.60.0")
    log = set_up.venv / "logs" / "stack.log"
    assert code == 1
    assert (
        err
        == f"error: installing packages failed: ERROR: No matching distribution found for ray==2.60.0 (log: {log})\n"
    )
    code, _, err = set_up.run("setup.sh", FAKE_SECOND="WARNING: ... NewConnectionError('refused'): /simple/ray/")
    assert code == 1 and "the package index cannot be reached; look at the network" in err and err.count("\n") == 1


@pytest.mark.parametrize("answer", ["", "WARNING: NameResolutionError"])
def test_torch_may_come_from_an_index_of_its_own_and_comes_anyhow(set_up: SetUp, answer: str) -> None:
    code, _, err = set_up.run("setup.sh", RECIPE_TORCH_INDEX="https://index.example/cpu", FAKE_TORCH=answer)
    assert (code, err) == (0, "") and set_up.asked[:3] == ["venv", "torch", "first"]


def test_no_index_is_asked_but_the_users(set_up: SetUp) -> None:
    assert set_up.run("setup.sh")[0] == 0
    assert "torch" not in set_up.asked


def test_stopped_in_the_middle_it_ends_its_children_and_goes_on_later(set_up: SetUp) -> None:
    process = set_up.start("setup.sh", FAKE_SECOND="hang")
    child = int(set_up.wait_for("pid").split()[1])
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "error: set-up was stopped; the same command goes on from here\n"
    assert set_up.ended(child)
    set_up.log.unlink()
    assert set_up.run("setup.sh")[0] == 0
    assert "second" in set_up.asked and "first" not in set_up.asked and "venv" not in set_up.asked


def test_an_environment_without_pip_is_finished(set_up: SetUp) -> None:
    assert set_up.run("setup.sh", FAKE_VENV="killed in ensurepip")[0] == 1
    set_up.log.unlink()
    assert set_up.run("setup.sh")[0] == 0
    assert set_up.asked[0] == "venv"


def test_two_at_once_take_turns(set_up: SetUp) -> None:
    first = set_up.start("setup.sh", FAKE_FIRST="hang")
    set_up.wait_for("pid")
    second = set_up.start("setup.sh")
    assert second.stdout is not None
    assert "another set-up of" in second.stdout.readline()
    assert set_up.asked.count("first") == 1
    os.killpg(first.pid, signal.SIGTERM)
    first.communicate(timeout=30)
    second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (143, 0)
    assert set_up.asked.count("first") == 2


def test_another_python_than_the_environments(set_up: SetUp) -> None:
    assert set_up.run("setup.sh")[0] == 0
    other = set_up.log.with_name("other")
    other.write_text("#!/bin/sh\necho 3.12\n", encoding="utf-8")
    other.chmod(0o755)
    code, _, err = set_up.run("setup.sh", RECIPE_PYTHON=str(other))
    assert code == 2
    assert err.startswith(f"error: RECIPE_PYTHON is {other}, but {set_up.venv} has Python 3.11: remove it, or name")
    assert err.count("\n") == 1


def test_a_package_that_was_cut_off_is_installed_again(set_up: SetUp) -> None:
    assert set_up.run("setup.sh", FAKE_SECOND="ERROR: cut")[0] == 1
    packages = set_up.venv / "lib" / "python3.11" / "site-packages"
    for name, files in {"whole-1.dist-info": ["METADATA", "RECORD"], "cut-1.dist-info": ["METADATA"]}.items():
        (packages / name).mkdir(parents=True)
        for file in files:
            (packages / name / file).touch()
    assert set_up.run("setup.sh")[0] == 0
    assert [path.name for path in packages.iterdir()] == ["whole-1.dist-info"]


def test_settings_of_other_projects_stay_out(set_up: SetUp, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "scripts").mkdir(parents=True)
    code, out, err = set_up.run(
        "setup.sh",
        CDPATH=str(tmp_path),
        PYTHONPATH="/nowhere",
        PYTHONHOME="/nowhere",
        PIP_USER="1",
        PIP_TARGET="/nowhere",
    )
    assert (code, err) == (0, ""), out


def test_no_place_to_write_to(set_up: SetUp, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = set_up.run("setup.sh", RECIPE_VENV=str(tmp_path / "file" / "venv"))
    assert code == 1 and "cannot be written to" in err and err.count("\n") == 1
