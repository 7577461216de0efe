# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments, on the real processes: nothing unfinished looks finished; a rerun ends in the same bytes.

Every system call that changes the disk is gone through one by one in test_job.py; here the kernel decides.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from pathlib import Path

import pytest
from torch.distributed.checkpoint import FileSystemReader

from recipe.tiny.config import Fp8Model
from recipe.weights.workspace import LEDGER, WORK
from tests.recipe.weights.tools import TOOLS, Inputs, Tool, make_inputs

WORKERS = 2
MODEL = Fp8Model(hidden_size=512, layers=5, experts=16, moe_intermediate_size=256, shard_bytes=4_000_000)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("killed"), MODEL, file_bytes=8_000_000)


def content(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and WORK not in path.parts
    }


def whole_files(output: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of the files that the ledger of an unfinished run lists; renaming changes neither."""
    ledger = output / WORK / LEDGER
    marks = {}
    for line in ledger.read_text().splitlines() if ledger.exists() else ():
        try:
            name = json.loads(line).get("name")
        except ValueError:
            continue
        for place in (output / WORK / str(name), output / str(name)):
            if name and place.exists():
                marks[name] = (place.stat().st_ino, place.stat().st_mtime_ns)
    return marks


def start_and_kill(tool: Tool, inputs: Inputs, output: Path, delay: float) -> None:
    """Kill the process `delay` seconds after it began to work in the output directory."""
    process = tool.start(inputs, output)
    try:
        deadline = time.monotonic() + 60
        while not (output / WORK).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(delay)
    finally:
        process.kill()
        process.wait()


def survives(tool: Tool, inputs: Inputs, scratch: Path, kills: int, seed: int) -> None:
    good = scratch / "good"
    start = time.monotonic()
    tool.run(inputs, good)
    seconds = time.monotonic() - start
    expected = content(good)
    rng = random.Random(f"{tool.name} {seed}")
    unfinished = 0
    for number in range(kills):
        output = scratch / f"out{number}"
        start_and_kill(tool, inputs, output, rng.uniform(0, 0.6 * seconds))
        if tool.is_taken_for_complete(output):
            assert content(output) == expected, number
        else:
            unfinished += 1
            if tool.name == "torch_dist":
                with pytest.raises(FileNotFoundError, match="metadata"):
                    FileSystemReader(output).read_metadata()
        half = [path for path in output.rglob("*.tmp") if path.is_file()]
        assert len(half) <= WORKERS, half
        before = whole_files(output)
        tool.run(inputs, output)
        assert content(output) == expected, number
        assert not (output / WORK).exists()
        for name, mark in before.items():
            file = output / name
            assert (file.stat().st_ino, file.stat().st_mtime_ns) == mark, f"{name} was whole and was written again"
    assert unfinished or kills == 1, "every kill came too late to matter"


@pytest.mark.parametrize("tool", TOOLS, ids=[tool.name for tool in TOOLS])
def test_killed_once(tool: Tool, inputs: Inputs, tmp_path: Path) -> None:
    survives(tool, inputs, tmp_path, kills=1, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS, ids=[tool.name for tool in TOOLS])
def test_killed_at_twenty_moments(tool: Tool, inputs: Inputs, tmp_path: Path) -> None:
    """Five of each tool's."""
    survives(tool, inputs, tmp_path, kills=5, seed=1)


@pytest.mark.slow
def test_killed_again_and_again(inputs: Inputs, tmp_path: Path) -> None:
    """One output, killed ten times while it is made: each run goes on from where the one before was stopped."""
    tool = TOOLS[1]
    tool.run(inputs, tmp_path / "good")
    output = tmp_path / "out"
    counts = []
    for _ in range(10):
        start_and_kill(tool, inputs, output, 0.05)
        counts.append(len(whole_files(output)) if not tool.is_taken_for_complete(output) else 10**6)
    assert counts == sorted(counts)
    tool.run(inputs, output)
    assert content(output) == content(tmp_path / "good")
