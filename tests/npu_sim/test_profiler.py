# SPDX-License-Identifier: Apache-2.0
"""What ran is in a Chrome trace, under the names by which it was called and within the marks around it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_npu
from torch_npu.npu import mstx
from torch_npu.profiler import profile, schedule, tensorboard_trace_handler


def events(file: Path) -> list[dict[str, Any]]:
    """Of a trace, what has a beginning and an end."""
    return [event for event in json.loads(file.read_text())["traceEvents"] if event.get("ph") == "X"]


def named(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (event,) = [event for event in found if event["name"] == name]
    return event


def work() -> None:
    x = torch.ones(4, 8, device="npu", requires_grad=True)
    torch_npu.npu_swiglu(x @ torch.ones(8, 6, device="npu")).sum().backward()


@mstx.mstx_range("all of it")
def marked_work() -> None:
    work()


def test_operators_lie_within_the_marks_around_them(tmp_path: Path) -> None:
    with profile(on_trace_ready=tensorboard_trace_handler(str(tmp_path), worker_name="rank0")) as recording:
        number = mstx.range_start("forward and backward")
        work()
        mstx.range_end(number)
        mstx.mark("now")
        marked_work()
        recording.step()
    (file,) = tmp_path.glob("rank0_*_ascend_pt/ASCEND_PROFILER_OUTPUT/trace_view.json")
    assert not list(file.parent.glob("*.json.*"))
    found = events(file)
    first, second = named(found, "forward and backward"), named(found, "all of it")
    assert named(found, "now")["ts"] >= first["ts"] + first["dur"]
    for mark in (first, second):
        within = [
            event["name"]
            for event in found
            if mark["ts"] <= event["ts"] <= event["ts"] + event["dur"] <= mark["ts"] + mark["dur"]
        ]
        assert {"aten::mm", "npu::npu_swiglu"} <= set(within)
        assert any("Backward" in name for name in within)
    assert "simulated NPU" in json.loads(file.read_text())["device"]


def test_collectives_are_operators_too(tmp_path: Path, run_python: Any) -> None:
    code = """
import sys, torch, torch_npu
torch.distributed.init_process_group("hccl", store=torch.distributed.HashStore(), rank=0, world_size=1)
with torch_npu.profiler.profile() as recording:
    torch.distributed.all_reduce(torch.ones(4, device="npu"))
recording.export_chrome_trace(sys.argv[1])
"""
    done = run_python(code, str(tmp_path / "trace.json"))
    assert done.returncode == 0, done.stderr
    assert named(events(tmp_path / "trace.json"), "c10d::allreduce_")["cat"] == "cpu_op"


def test_outside_a_recording_marks_and_operators_leave_nothing(tmp_path: Path) -> None:
    before = mstx.range_start("before")
    assert before == 0
    with profile() as recording:
        mstx.range_end(before)
        mstx.range_end(12345)
    work()
    recording.export_chrome_trace(str(tmp_path / "deep" / "trace.json"))
    assert not {"before", "aten::mm"} & {event["name"] for event in events(tmp_path / "deep" / "trace.json")}


def test_a_schedule_chooses_the_steps(tmp_path: Path) -> None:
    recording = profile(
        schedule=schedule(wait=1, warmup=1, active=1, repeat=1),
        on_trace_ready=lambda recorded: recorded.export_chrome_trace(str(tmp_path / "trace.json")),
    )
    recording.start()
    for step in range(4):
        mstx.range_end(mstx.range_start(f"step {step}"))
        recording.step()
    recording.stop()
    assert [event["name"] for event in events(tmp_path / "trace.json") if event["name"].startswith("step")] == [
        "step 2"
    ]


def test_a_trace_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with profile() as recording:
        pass
    with pytest.raises(OSError, match="a file"):
        recording.export_chrome_trace(str(tmp_path / "a file" / "trace.json"))
    assert [file.name for file in tmp_path.iterdir()] == ["a file"]
