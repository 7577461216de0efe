# SPDX-License-Identifier: Apache-2.0
"""transfer_to_npu changes the whole process and cannot be undone: its checks run in one of their own."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("transfer_process.py")


def check_names() -> list[str]:
    for node in ast.parse(SCRIPT.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "CHECKS":
            assert isinstance(node.value, ast.List)
            return [element.id for element in node.value.elts if isinstance(element, ast.Name)]
    raise AssertionError("transfer_process.py has no CHECKS")


@pytest.fixture(scope="module")
def results() -> dict[str, str | None]:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", check_names())
def test_code_written_for_cuda(results, name):
    assert results[name] is None, results[name]
