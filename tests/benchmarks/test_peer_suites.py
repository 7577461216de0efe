# SPDX-License-Identifier: Apache-2.0
"""Tests of others as ours: `benchmarks/peer_suites.py` and its parts, on little suites made here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peer_suites, peer_verdicts

REPO = Path(__file__).resolve().parents[2]


COMMON = """
[reasons.skips-itself]
verdict = "not applicable"
why = "it says so"
error = ["Skipped"]
"""
OWN = """
[reasons.no-fft]
verdict = "refused"
why = "no FFT"
error = ["NotImplementedError"]
says = ["fft", "stft"]
tests = ["*test_spectrum*"]

[reasons.too-much]
verdict = "not applicable"
why = "takes hours"
tests = ["*::test_big[huge]"]
run = false
"""


def _records(directory: Path, own: str = OWN) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "common.toml").write_text(COMMON)
    (directory / "little.toml").write_text(own)
    return directory


def _result(test: str, outcome: str = "failed", error: str = "", says: str = "") -> dict[str, Any]:
    return {"test": test, "outcome": outcome, "error": error, "says": says, "seconds": 0.1}


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (_result("a.py::test_a", "passed"), "passed"),
        (_result("a.py::test_spectrum", "failed", "NotImplementedError", "aten::_fft_c2c"), "refused (no-fft)"),
        (_result("a.py::test_spectrum", "failed", "NotImplementedError", "aten::cdist"), "wrong"),
        (_result("a.py::test_spectrum", "failed", "ValueError", "fft"), "wrong"),
        (_result("a.py::test_other", "failed", "NotImplementedError", "fft"), "wrong"),
        (_result("a.py::test_big[huge]", "skipped", "NotRun"), "not applicable (too-much)"),
        (_result("a.py::test_big[huge]", "failed", "ValueError"), "wrong"),
        (_result("a.py::test_a", "skipped", "Skipped", "no GPU"), "not applicable (skips-itself)"),
        (_result("a.py::test_a", "crashed", "crashed", "SIGSEGV"), "wrong"),
        (_result("a.py::test_a", "late", "late", "over its limit of 1 s"), "wrong"),
    ],
)
def test_a_result_is_judged_by_the_first_reason_that_fits(tmp_path: Path, result: dict[str, Any], verdict: str) -> None:
    record = peer_verdicts.read_record("little", _records(tmp_path))
    assert str(peer_verdicts.judge(result, record.reasons)) == verdict


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ('[reasons.a]\nverdict = "fine"\nwhy = "x"\nsays = ["a"]\n', "needs a why and the verdict"),
        ('[reasons.a]\nverdict = "refused"\nwhy = "x"\n', "at least one"),
        ('[reasons.a]\nverdict = "refused"\nwhy = "x"\nsay = ["a"]\n', "say"),
        ('[reasons.skips-itself]\nverdict = "refused"\nwhy = "x"\nsays = ["a"]\n', "there twice.*skips-itself"),
        ('[tests]\npassed = 1\n[tests.gone]\n"a.py" = 1\n', "is not there: gone"),
    ],
)
def test_a_record_that_says_nothing_is_refused(tmp_path: Path, own: str, message: str) -> None:
    with pytest.raises(peer_verdicts.RecordError, match=message):
        peer_verdicts.read_record("little", _records(tmp_path, own))


def _judged(*rows: tuple[str, str, str]) -> list[Any]:
    return [peer_verdicts.Judged(*row) for row in rows]


ROWS = _judged(
    ("a.py::test_one", "passed", ""),
    ('a.py::test_spectrum[x-"y" \\ \n]', "refused", "no-fft"),
    ("b.py::T::test_1", "not applicable", "skips-itself"),
    ("b.py::T::test_2", "not applicable", "skips-itself"),
)


def test_what_is_written_into_the_record_is_read_from_it_again(tmp_path: Path) -> None:
    directory = _records(tmp_path)
    for _ in range(2):
        peer_verdicts.write_record("little", ROWS, (), directory)
        record = peer_verdicts.read_record("little", directory)
        assert peer_verdicts.differences(ROWS, record, whole_suite=True) == []
        assert record.whole_files == {"b.py": ("skips-itself", 2)} and record.passed == 1
        assert (directory / "little.toml").read_text().startswith(OWN)


@pytest.mark.parametrize(
    ("rows", "whole", "said"),
    [
        (_judged(("a.py::test_one", "refused", "no-fft")), False, "one: recorded passed, or not there, now refused"),
        (_judged(("b.py::T::test_1", "passed", "")), False, "recorded not applicable (skips-itself), now passed"),
        (_judged(("b.py::T::test_1", "refused", "no-fft")), False, "now refused (no-fft)"),
        (ROWS[:1] + ROWS[2:], True, "recorded, but not there"),
        (ROWS[:3], True, "b.py: recorded 2 tests, there are 1"),
        (ROWS[1:], True, "recorded 1 passed tests, now 0"),
        (_judged(("c.py::test_new", "passed", "")) + ROWS, True, "recorded 1 passed tests, now 2"),
    ],
)  # fmt: skip
def test_a_run_that_differs_from_the_record_says_where(tmp_path: Path, rows: list[Any], whole: bool, said: str) -> None:
    directory = _records(tmp_path)
    peer_verdicts.write_record("little", ROWS, (), directory)
    (line,) = peer_verdicts.differences(rows, peer_verdicts.read_record("little", directory), whole)
    assert said in line
    assert peer_verdicts.differences(ROWS, peer_verdicts.read_record("little", directory), whole) == []


def test_the_records_beside_the_benchmark_can_be_read_and_name_every_reason_they_use() -> None:
    for suite in peer_suites.suites():
        record = peer_verdicts.read_record(suite.option)
        assert all(reason.why for reason in record.reasons), suite.name


def test_files_that_no_run_has_come_to_are_not_compared(tmp_path: Path) -> None:
    directory = _records(tmp_path)
    peer_verdicts.write_record("little", ROWS, ["b.py"], directory)
    record = peer_verdicts.read_record("little", directory)
    assert record.unseen == {"b.py"} and not record.whole_files
    assert peer_verdicts.differences(ROWS, record, whole_suite=True) == []
    assert len(peer_verdicts.differences(_judged(("a.py::test_one", "refused", "no-fft")), record, False)) == 1


FILES = {
    "tests/test_a_values.py": """
import random
import pytest
def test_right(): assert 1 + 1 == 2
def test_value(): assert [1.0] == [2.0]
def test_spectrum(): raise NotImplementedError("aten::_fft_c2c is not supported")
def test_draw(): assert 0 <= random.random() < 1
@pytest.mark.parametrize("size", ["small", "huge"])
def test_big(size): assert size == "small"
@pytest.mark.skip(reason="no GPU")
def test_skipped(): pass
@pytest.mark.xfail
def test_expected(): assert False
""",
    "tests/test_b_ends.py": """
import os, signal, subprocess, sys, time
def test_before(): pass
def test_segfault(): os.kill(os.getpid(), signal.SIGSEGV)
def test_exit(): os._exit(3)
def test_late():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open("child", "w").write(str(child.pid))
    time.sleep(600)
def test_busy():
    while True: pass
def test_after(): pass
""",
    "tests/test_c_import.py": "import no_such_module\n",
}
RANKS = {
    "tests/test_ranks.py": """
import os, time
import pytest
RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
def test_all(): assert SIZE == 2 and 0 <= RANK < 2
def test_one_fails(): assert RANK == 0
def test_one_dies():
    if RANK: os._exit(1)
    time.sleep(600)
def test_one_fails_and_the_other_waits():
    assert RANK == 0
    time.sleep(600)
@pytest.fixture
def waits_at_its_end():
    yield
    time.sleep(600)
def test_one_fails_and_both_wait(waits_at_its_end): assert RANK == 0, "given up"
def test_after(): pass
""",
}


@pytest.fixture
def little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a checkout of a little suite and return a function that runs the benchmark on it."""
    records = _records(tmp_path / "records")
    monkeypatch.setattr(peer_suites, "read_record", lambda name: peer_verdicts.read_record(name, records))
    monkeypatch.setattr(peer_suites, "write_record", lambda *what: peer_verdicts.write_record(*what, directory=records))

    def run(files: dict[str, str], *arguments: str, **fields: Any) -> int:
        for name, text in files.items():
            file = tmp_path / "checkout" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        fields = {"preload": ("pytest",), "limit_s": 2.0} | fields
        suite = peer_suites.Suite("little", ("v1", "0" * 40), ("tests/test_*.py",), **fields)
        monkeypatch.setattr(peer_suites, "suites", lambda: (suite,))
        monkeypatch.chdir(tmp_path)
        return peer_suites.main(["--little", "checkout", "--out", "out", *arguments])

    return run


def _verdicts(tmp_path: Path) -> dict[str, str]:
    lines = map(json.loads, (tmp_path / "out" / "little.jsonl").read_text().splitlines())
    return {
        line["test"].partition("::")[2]: f"{line['outcome']} {line['says'][:20]}" for line in lines if "test" in line
    }


def test_each_test_has_its_outcome_and_one_that_ends_the_process_costs_itself_only(
    little: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert little(FILES) == 1
    outcomes = _verdicts(tmp_path)
    assert {name: outcome.split()[0] for name, outcome in outcomes.items()} == {
        "test_right": "passed", "test_value": "failed", "test_spectrum": "failed", "test_draw": "passed",
        "test_big[small]": "passed", "test_big[huge]": "skipped", "test_skipped": "skipped",
        "test_expected": "passed", "test_before": "passed", "test_segfault": "crashed",
        "test_exit": "crashed", "test_late": "late", "test_busy": "late", "test_after": "passed", "": "failed",
    }  # fmt: skip
    assert outcomes["test_segfault"].endswith("SIGSEGV") and outcomes["test_exit"].endswith("exit code 3")
    said = capsys.readouterr()
    assert "15 tests, 6 passed, 1 refused, 2 not applicable, 6 wrong" in said.out
    assert "WRONG tests/test_c_import.py::: failed, ModuleNotFoundError" in said.out
    assert "What to do" in said.out and "not a git checkout" in said.err
    child = int((tmp_path / "out" / "scratch" / "little" / "child").read_text())
    with pytest.raises(ProcessLookupError):  # what a late test has started ends with it
        os.kill(child, 0)
    assert not list((tmp_path / "checkout").rglob("__pycache__"))


def test_a_recorded_run_is_as_recorded_and_the_next_difference_is_an_error(
    little: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = {"tests/test_a.py": FILES["tests/test_a_values.py"].replace("[1.0] == [2.0]", "True")}
    assert little(one, "--record") == 0 and "as recorded" in capsys.readouterr().out
    assert little(one) == 0
    assert little(one, "--only", "test_a.py::test_sp*m") == 0
    assert "little: 1 tests, 0 passed, 1 refused" in capsys.readouterr().out
    changed = {"tests/test_a.py": one["tests/test_a.py"].replace("raise NotImplementedError", "print")}
    assert little(changed, "--json") == 1
    came_to = json.loads(capsys.readouterr().out)["little"]
    assert came_to["wrong"] == [] and len(came_to["differences"]) == 1
    assert "test_spectrum: recorded refused (no-fft), now passed" in came_to["differences"][0]


def test_a_test_is_as_bad_as_on_its_worst_rank(little: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_suites, "START_LIMIT_S", 30.0)
    assert little(RANKS, ranks=(2,), limit_s=15.0) == 1
    lines = [json.loads(line) for line in (tmp_path / "out" / "little.jsonl").read_text().splitlines()]
    assert [line["test"] for line in lines[:-1]] == [
        f"tests/test_ranks.py@2::{name}"
        for name in (
            "test_all", "test_one_fails", "test_one_dies", "test_one_fails_and_the_other_waits",
            "test_one_fails_and_both_wait", "test_after",
        )
    ]  # fmt: skip
    assert [line["outcome"] for line in lines[:-1]] == ["passed", "failed", "crashed", "failed", "failed", "passed"]
    assert "given up" in lines[4]["says"]


def test_a_file_that_pytest_cannot_begin_with_is_a_result(little: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert little({"tests/conftest.py": "import no_such_module\n", "tests/test_a.py": "def test_1(): pass\n"}) == 1
    assert "WRONG tests/test_a.py::: failed, ModuleNotFoundError" in capsys.readouterr().out


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    checkout, seen, results = tmp_path / "checkout", tmp_path / "seen", tmp_path / "little.jsonl"
    (checkout / "tests").mkdir(parents=True)
    for name in "abc":
        (checkout / "tests" / f"test_{name}.py").write_text(
            f"import time\ndef note(what): open({str(seen)!r}, 'a').write(what + ' ')\n"
            f"def test_1(): note('{name}1')\ndef test_2(): note('{name}2'); time.sleep({3 if name == 'b' else 0})\n"
            f"def test_3(): note('{name}3')\n"
        )
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import peer_suites\n"
        "suite = peer_suites.Suite('little', ('v1', '0' * 40), ('tests/test_*.py',), preload=('pytest',))\n"
        "peer_suites.suites = lambda: (suite,)\nsys.exit(peer_suites.main())"
    )
    command = [
        sys.executable,
        "-c",
        program,
        str(REPO / "benchmarks"),
        "--little",
        str(checkout),
        "--out",
        str(tmp_path),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
        deadline = time.monotonic() + 60
        while not (results.exists() and "b.py::test_1" in results.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        while "b2" not in seen.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        first.send_signal(signal.SIGINT)
        assert first.wait(30) == 130 and first.stderr is not None and "--resume" in first.stderr.read()
    assert seen.read_text() == "a1 a2 a3 b1 b2 "
    subprocess.run([*command, "--resume"], capture_output=True, timeout=60, check=False)
    assert seen.read_text() == "a1 a2 a3 b1 b2 b2 b3 c1 c2 c3 "


def test_what_the_user_must_see_to_first_is_said(
    little: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert little({"tests/test_a.py": ""}, needs=("no_such_package",)) == 2
    assert "pip install no-such-package" in capsys.readouterr().err
    assert little({}, "--record", "--only", "x") == 2
    assert "leave --only out" in capsys.readouterr().err
    assert little({}, "--list") == 0 and "tests/test_a.py" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert peer_suites.main([]) == 2 and "name at least one checkout" in capsys.readouterr().err


def test_a_checkout_at_another_commit_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert peer_suites.check_commit(tmp_path, ("v1", "0" * 40), "little") == commit
    assert f"is at {commit}; recorded is 000" in capsys.readouterr().err
    peer_suites.check_commit(tmp_path, ("v1", commit), "little")
    assert capsys.readouterr().err == ""
    (tmp_path / "file").write_text("2")
    peer_suites.check_commit(tmp_path, ("v1", commit), "little")
    assert "has changed files" in capsys.readouterr().err
