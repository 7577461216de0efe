# SPDX-License-Identifier: Apache-2.0
"""Several processes on one device see each other's memory, and a dead one gives back."""

import os
import signal
import subprocess
import sys

import pytest

MiB = 1 << 20

HOLD = """
import sys, torch
block = torch.empty(int(sys.argv[1]) << 20, dtype=torch.uint8, device="npu:" + sys.argv[2])
print("holding", flush=True)
sys.stdin.read()
"""
LOOK = """
import os, torch, torch_npu
print(torch.npu.mem_get_info(0)[0], torch.npu.mem_get_info(1)[0])
try:
    torch.empty(60 << 20, dtype=torch.uint8, device="npu:0"); print("fits")
except torch.OutOfMemoryError as error:
    print(error)
print(len(torch_npu.sim.slots()))
"""


@pytest.fixture
def environment(tmp_path):
    return {"NPU_SIM_SLOTS": str(tmp_path / "slots"), "NPU_SIM_HBM": "64MiB", "NPU_SIM_DEVICES": "4"}


@pytest.fixture
def holder(environment):
    """holder(MiB, device, **environment) → a process that holds that much."""
    started = []

    def start(size: int, device: int, **more: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(size), str(device)],
            env={**os.environ, **environment, **more},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "holding\n", process.stderr.read()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()


def test_processes_share_a_device_and_a_killed_one_gives_back(run_python, environment, holder):
    first = holder(16, 0)
    second = holder(6, 0, ASCEND_RT_VISIBLE_DEVICES="1")  # its npu:0 is our npu:1
    free, refused, slots = run_python(LOOK, **environment).stdout.splitlines()
    assert free.split() == [str(48 * MiB), str(58 * MiB)]
    assert "Tried to allocate 60.00 MiB" in refused and "16.00 MiB held by other processes" in refused
    assert slots == "2"
    first.send_signal(signal.SIGKILL)  # and not reaped yet: a zombie holds nothing
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    lines = run_python(LOOK, **environment).stdout.splitlines()
    assert lines[0].split() == [str(64 * MiB), str(58 * MiB)]
    assert lines[1:] == ["fits", "2"]
    second.communicate()  # it ends by itself
    assert run_python(LOOK, **environment).stdout.splitlines()[0].split() == [str(64 * MiB), str(64 * MiB)]


def test_a_forked_child_is_a_process_of_its_own(run_python, environment):
    code = """
import os, torch, torch_npu
mine = torch.empty(8 << 20, dtype=torch.uint8, device="npu")
pid = os.fork()
if pid == 0:
    assert torch.npu.mem_get_info()[0] == 56 << 20, torch.npu.mem_get_info()
    more = torch.empty(4 << 20, dtype=torch.uint8, device="npu")
    assert torch.npu.mem_get_info()[0] == 52 << 20, torch.npu.mem_get_info()
    assert {pid for pid, _, _ in torch_npu.sim.slots()} == {os.getpid(), os.getppid()}
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), torch.npu.mem_get_info()[0] >> 20)
"""
    done = run_python(code, **environment)
    assert done.stdout.split() == ["0", "56"], done.stderr


def test_a_file_that_is_no_slot_file_is_refused_and_kept(run_python, environment, tmp_path):
    foreign = tmp_path / "slots"
    foreign.write_text("precious")
    done = run_python("import torch; torch.ones(1, device='npu')", **environment)
    assert done.returncode != 0
    assert "is not a slot file" in done.stderr
    assert foreign.read_text() == "precious"
