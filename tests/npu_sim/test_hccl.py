# SPDX-License-Identifier: Apache-2.0
"""The hccl backend between two processes; the checks themselves are in hccl_process.py."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ranks import free_port

SCRIPT = Path(__file__).with_name("hccl_process.py")


def check_names() -> list[str]:
    for node in ast.parse(SCRIPT.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "CHECKS":
            assert isinstance(node.value, ast.List)
            return [element.id for element in node.value.elts if isinstance(element, ast.Name)]
    raise AssertionError("hccl_process.py has no CHECKS")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict[str, str | None]]:
    port = str(free_port())
    folder = tmp_path_factory.mktemp("hccl")
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), "2", port, str(folder / f"{rank}.json")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=150)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", check_names())
def test_between_two_processes(results, name):
    for rank, result in enumerate(results):
        assert result[name] is None, f"rank {rank}: {result[name]}"
