# SPDX-License-Identifier: Apache-2.0
"""The fast tests: what reaches for what takes long is left out and counted, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
TESTS = """
import subprocess, sys, time
import pytest

def test_quick(): assert subprocess.run(["git", "--version"]).returncode == 0
def test_wrong(): assert False
def test_imports():
    import ray
def test_starts():
    try: subprocess.run([sys.executable, "-c", ""])
    except BaseException: pass
def test_computes():
    while True: pass
def test_sleeps(): time.sleep(60)

@pytest.fixture(scope="module")
def made(): import transformers
def test_first_with_it(made): pass
def test_second_with_it(made): pass
"""


@pytest.fixture(scope="module", params=[[], ["-n", "2"]], ids=["one process", "two"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of those tests, beside a file that imports torch."""
    directory = tmp_path_factory.mktemp("fast")
    (directory / "test_several.py").write_text(TESTS, encoding="utf-8")
    for name in ("test_torch.py", "test_torch_too.py"):
        (directory / name).write_text("import torch\n\ndef test_never(): assert False\n", encoding="utf-8")
    (directory / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.fast", *request.param, "."],
        cwd=directory, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_a_quick_test_passes_and_a_wrong_one_fails(told: str) -> None:
    assert "1 failed, 1 passed" in told and "test_wrong" in told


@pytest.mark.parametrize(
    "line",
    [
        "2 test files import torch",
        "1 tests of other files import ray",
        "2 tests of other files import transformers",
        "1 tests of other files start processes",
        "2 tests of other files take long",
    ],
)
def test_what_was_left_out_is_counted_by_the_reason(told: str, line: str) -> None:
    assert line in told.splitlines()
    assert "6 left out" in told
