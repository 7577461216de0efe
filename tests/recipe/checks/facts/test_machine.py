# SPDX-License-Identifier: Apache-2.0
"""Facts of a machine are read as they are."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from recipe.checks.facts.machine import canonical, device_files, free_bytes, this_machine
from recipe.checks.facts.packages import requirements

REPO = Path(__file__).resolve().parents[4]


def test_this_machine_agrees_with_psutil_and_resource() -> None:
    here = this_machine()
    assert here.memory is not None and here.memory <= psutil.virtual_memory().total
    assert here.cpus == len(psutil.Process().cpu_affinity() or [])
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert here.limits["nofile"] == (None if soft == resource.RLIM_INFINITY else soft)
    assert here.interfaces["lo"] == "127.0.0.1"
    assert here.version("PyArrow") == "20.0.0" and here.version("no-such-package") is None
    assert here.python == sys.version_info[:3]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_port_that_is_listened_on_is_seen_and_another_is_not(family: socket.AddressFamily) -> None:
    with socket.socket(family) as listening, socket.socket(family) as bound:
        for one in (listening, bound):
            one.bind(("127.0.0.1" if family is socket.AF_INET else "::1", 0))
        listening.listen(1)
        seen = this_machine().listening
        assert listening.getsockname()[1] in seen and bound.getsockname()[1] not in seen


def test_processes_of_a_run_are_found_but_not_those_that_ask() -> None:
    """The one that asks carries the mark of its own run, as a preflight that a launcher started does."""
    code = (
        "from recipe.checks.facts.machine import this_machine\n"
        "print([one.pid for one in this_machine().processes if one.run == 'mine'])"
    )
    mark = {**os.environ, "RECIPE_RUN_ID": "mine"}
    other = subprocess.Popen([sys.executable, "-c", "input()"], env=mark, stdin=subprocess.PIPE)
    try:
        while b"RECIPE_RUN_ID" not in Path(f"/proc/{other.pid}/environ").read_bytes():
            pass
        done = subprocess.run([sys.executable, "-c", code], env=mark, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == f"[{other.pid}]"
    finally:
        other.communicate(b"\n")


def test_device_files_are_counted_by_their_numbers(tmp_path: Path) -> None:
    for name in ("davinci0", "davinci1", "davinci10", "davinci_manager", "nvidia0", "nvidiactl"):
        (tmp_path / name).touch()
    assert len(device_files("davinci", tmp_path)) == 3 and len(device_files("nvidia", tmp_path)) == 1


def test_free_bytes_of_a_directory_that_is_yet_to_be_made(tmp_path: Path) -> None:
    free = free_bytes(tmp_path / "a" / "b")
    assert free is not None and abs(free - psutil.disk_usage(str(tmp_path)).free) < 2**30


def test_requirements_are_read_with_extras_comments_and_markers(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(
        "# comment\nray[default]==2.60.0  # why\nTorch_NPU==2.5.1.post1\n-r other.txt\n"
        'tomli==2.4.0; python_version < "3.11"\nnumpy>=1\n'
    )
    assert requirements(file, (3, 11)) == {"ray": "2.60.0", "torch-npu": "2.5.1.post1"}
    assert requirements(file, (3, 10))["tomli"] == "2.4.0"
    assert canonical("Torch_NPU") == "torch-npu"
    assert len(requirements(REPO / "requirements-sim.txt", (3, 11))) > 30
