# SPDX-License-Identifier: Apache-2.0
"""The memory of the tools, on the real processes: bounded, no more for twice the tensors or files twice as large."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from recipe.tiny.config import Fp8Model
from tests.recipe.weights.tools import REPOSITORY, TOOLS, Inputs, Tool, make_inputs

WORKERS = 2
MIB = 2**20
# Every tool finishes with this many addresses, code and threads and all.
ADDRESS_SPACE = 1024 * MIB
RESIDENT = {"cast": 96 + 80 * WORKERS, "torch_dist": 820, "legacy": 1024, "mcore_to_hf": 1024}
MODEL = Fp8Model(
    hidden_size=1024, layers=3, experts=16, intermediate_size=2048, moe_intermediate_size=512, vocabulary=1024,
    shard_bytes=16_000_000,
)  # fmt: skip
FILE_BYTES = 32_000_000


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Inputs]:
    scratch = tmp_path_factory.mktemp("memory")
    larger = replace(MODEL, shard_bytes=2 * MODEL.shard_bytes)
    return {
        "as it is": make_inputs(scratch / "one", MODEL, FILE_BYTES),
        "twice the tensors": make_inputs(scratch / "tensors", replace(MODEL, experts=2 * MODEL.experts), FILE_BYTES),
        "files twice as large": make_inputs(scratch / "files", larger, 2 * FILE_BYTES),
    }


def resident(tool: Tool, inputs: Inputs, output: Path) -> float:
    """The largest resident set of the process, in MiB; it must get by with ADDRESS_SPACE."""
    command = tool.command(inputs, output, ADDRESS_SPACE, WORKERS)
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert tool.is_taken_for_complete(output)
    return int(done.stdout.split()[-2]) / 1024


@pytest.mark.parametrize("tool", TOOLS, ids=[tool.name for tool in TOOLS])
def test_memory_does_not_grow_with_the_model(tool: Tool, inputs: dict[str, Inputs], tmp_path: Path) -> None:
    measured = {name: resident(tool, directory, tmp_path / name) for name, directory in inputs.items()}
    assert all(mib <= RESIDENT[tool.name] for mib in measured.values()), measured
    # More of the output than of the memory, so that holding it would show.
    assert sum(file.stat().st_size for file in (tmp_path / "as it is").rglob("*")) > 80 * MIB
    for name, mib in measured.items():
        assert mib <= 1.05 * measured["as it is"], (name, measured)
