# SPDX-License-Identifier: Apache-2.0
"""Tensors without contents take what full ones take, to the byte, but none of the host's memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.npu_sim.hollow_process import CASES

ROOT = Path(__file__).resolve().parents[2]
NAMES = [case.__name__ for case in CASES if case.__name__ != "operators"]

# The strides that torch's shape functions of these give are not those of its CPU kernels.
OTHER_STRIDES = {"linalg.eig", "pca_lowrank", "svd_lowrank"}


def process(*command: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "NPU_SIM_HBM": "64GiB"}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=240, env=variables, cwd=ROOT
    )


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    """What each case came to, in a full process and in a hollow one."""
    found = {}
    for mode in ("full", "hollow"):
        done = process("-m", "tests.npu_sim.hollow_process", mode)
        assert done.returncode == 0, done.stderr[-3000:]
        found[mode] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_bytes_and_shapes_are_those_of_full_tensors(results: dict[str, dict[str, Any]], name: str) -> None:
    assert results["full"][name] == results["hollow"][name]


def test_operators_give_shapes_and_take_bytes_as_with_full_tensors(results: dict[str, dict[str, Any]]) -> None:
    full, hollow = results["full"]["operators"], results["hollow"]["operators"]
    different = {name: (full[name], hollow[name]) for name in full if full[name] != hollow[name]}
    refused = {name for name, (_, found) in different.items() if found == ["HollowRead"]}
    assert different.keys() - refused <= OTHER_STRIDES
    assert len(full) > 600 and len(refused) < 25, sorted(refused)


def hollow(code: str) -> str:
    """What a process prints in which floating tensors of 1 MiB and more are without contents."""
    start = "import resource, torch, torch_npu\nfrom torch_npu import sim\nsim.make_hollow(2**20)\n"
    done = process("-c", start + code)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_no_host_memory_is_touched() -> None:
    code = """
first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
layer = torch.nn.Linear(16384, 16384, device="npu")
y = layer(torch.randn(8192, 16384, device="npu")).relu()
y.sum().backward()
torch.optim.AdamW(layer.parameters(), foreach=False).step()
host = torch.empty(2**31, pin_memory=True)
print(torch.npu.max_memory_allocated() // 2**20, torch_npu._sim.pinned_bytes() // 2**20)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first) // 2**10)
"""
    counted, grown = hollow(code).splitlines()
    device, pinned = map(int, counted.split())
    assert device > 4 * 1024 and pinned == 8 * 1024
    assert int(grown) < 400


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("x.sum().item()", "aten::_local_scalar_dense reads a float32 of a tensor without contents"),
        ("torch.nonzero(x)", "aten::nonzero wants contents"),
        ("x[x > 0]", "aten::index.Tensor wants to know where a mask is true"),
        ("x.masked_select(x > 0)", "aten::masked_select wants to know where a mask is true"),
        ("torch.equal(x, x)", "aten::equal wants contents"),
        ("x.unique()", "aten::_unique2 wants contents"),
        ("x.cpu().numpy()", "Tensor.numpy wants contents"),
        ("x.cpu().tolist()", "Tensor.tolist wants contents"),
        ("torch.cummax(x, 0)", "aten::_cummax_helper has no shape function"),
        ("sim.give_contents(torch.zeros(512, device='npu'), x[0])", "give_contents got values without contents"),
    ],
)
def test_who_wants_contents_is_told_by_name_and_line(expression: str, says: str) -> None:
    code = f"""
def upstream(x):
    return {expression}
try:
    upstream(torch.randn(512, 512, device="npu"))
except sim.HollowRead as error:
    print(error)
"""
    told = hollow(code)
    assert told.startswith(says)
    assert "in upstream" in told


def test_contents_spread_and_come_back() -> None:
    code = """
x = torch.randn(512, 512, device="npu")
small = torch.zeros(4, device="npu")
made = (x, small, torch.arange(512 * 512).npu(), x.sum(), x.argmax(), torch.zeros_like(x[0]))
seen = [sim.is_hollow(t) for t in made]
small[1:3] = x[0, :2]
seen.append(sim.is_hollow(small))
small.zero_()
seen.append(sim.is_hollow(small))
with sim.with_contents():
    known = torch.eye(512)
sim.give_contents(x, known)
seen += [sim.is_hollow(x), x.argmax(1).equal(torch.arange(512).npu()), torch.npu.memory_allocated() < 4 * 2**20]
print(seen)
"""
    assert hollow(code) == str([True, False, False, True, True, False, True, False, False, True, True])


def test_what_does_not_fit_is_out_of_memory() -> None:
    code = """
import os
sim.set_hbm_bytes(2**30)
x = torch.randn(2**27, device="npu")
try:
    x * 2, x * 3
except torch.OutOfMemoryError as error:
    print(str(error).splitlines()[0])
"""
    assert "Tried to allocate 512.00 MiB on npu:0 (simulated): 1.00 GiB total capacity" in hollow(code)
