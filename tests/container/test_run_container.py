# SPDX-License-Identifier: Apache-2.0
"""scripts/run_container.sh on hosts made of plain files: which devices it finds, and what it would type."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host with sixteen dies."""
    dev = tmp_path / "dev"
    dev.mkdir()
    for name in (*(f"davinci{n}" for n in range(16)), "davinci_manager", "devmm_svm", "hisi_hdc", "davinci_other"):
        (dev / name).touch()
    (tmp_path / "usr/local/Ascend/driver/lib64").mkdir(parents=True)
    (tmp_path / "usr/local/bin").mkdir(parents=True)
    (tmp_path / "usr/local/bin/npu-smi").touch()
    (tmp_path / "data").mkdir()
    return tmp_path


def run(host: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(REPO / "scripts" / "run_container.sh"), *arguments],
        env={**os.environ, "RECIPE_DEV": str(host / "dev"), "RECIPE_HOST_ROOT": str(host), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def dry(host: Path, *arguments: str) -> list[str]:
    done = run(host, "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout)


def values(command: list[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(command) if name == option]


def test_all_dies_are_found_in_order(host: Path) -> None:
    command = dry(host, "image:1")
    dev = host / "dev"
    wanted = [*(f"davinci{n}" for n in range(16)), "davinci_manager", "devmm_svm", "hisi_hdc"]
    assert values(command, "--device") == [str(dev / name) for name in wanted]
    assert command[:3] == ["docker", "run", "--rm"] and command[-1] == "image:1"


def test_it_runs_as_the_caller_without_privileges(host: Path) -> None:
    command = dry(host, "image:1", "bash", "-c", "echo 'a b'")
    assert values(command, "--user") == [f"{os.getuid()}:{os.getgid()}"]
    assert values(command, "--group-add") == [str((host / "dev" / "davinci0").stat().st_gid)]
    assert values(command, "--security-opt") == ["no-new-privileges"]
    assert "--privileged" not in command and not values(command, "--cap-add")
    assert command[-4:] == ["image:1", "bash", "-c", "echo 'a b'"]


def test_only_what_the_host_has_of_the_driver_is_mounted(host: Path) -> None:
    mounted = values(dry(host, "--runs", str(host / "my runs"), "--mount", str(host / "data"), "image:1"), "--volume")
    assert mounted == [
        f"{host}/usr/local/Ascend/driver/lib64:/usr/local/Ascend/driver/lib64:ro",
        f"{host}/usr/local/bin/npu-smi:/usr/local/bin/npu-smi:ro",
        f"{host}/data:{host}/data",
        f"{host}/my runs:/runs",
    ]
    assert not (host / "my runs").exists(), "a dry run makes nothing"


def test_some_dies(host: Path) -> None:
    chosen = values(dry(host, "--devices", "3,12", "image:1"), "--device")
    assert chosen[:2] == [str(host / "dev" / "davinci3"), str(host / "dev" / "davinci12")] and len(chosen) == 5


@pytest.mark.parametrize(
    ("arguments", "remove", "expected"),
    [
        (["--devices", "16", "i"], "", "davinci16 does not exist; this host has 0 1 2"),
        (["--devices", "0-3", "i"], "", "--devices 0-3: give numbers"),
        (["--mount", "/no/such/place", "i"], "", "--mount /no/such/place: no such directory"),
        (["i"], "dev/hisi_hdc", "hisi_hdc does not exist, and no NPU works without it"),
        (["i"], "usr/local/Ascend/driver/lib64", "driver/lib64 does not exist; is the driver installed?"),
        ([], "", "no image given"),
        (["--privileged", "i"], "", "unknown option --privileged"),
        (["--name"], "", "--name needs a value"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(host: Path, arguments: list[str], remove: str, expected: str) -> None:
    path = host / remove
    if remove:
        path.rmdir() if path.is_dir() else path.unlink()
    done = run(host, "--dry-run", *arguments)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and expected in done.stderr, done.stderr


def test_without_npus(host: Path) -> None:
    for path in (host / "dev").glob("davinci[0-9]*"):
        path.unlink()
    assert "no NPU found" in run(host, "--dry-run", "i").stderr


def test_it_starts_docker_with_what_it_shows(host: Path, tmp_path: Path) -> None:
    fake = tmp_path / "bin" / "docker"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    fake.chmod(0o755)
    runs = host / "runs"
    done = run(host, "--runs", str(runs), "image:1", "true", PATH=f"{fake.parent}:{os.environ['PATH']}")
    assert done.stdout.splitlines() == dry(host, "--runs", str(runs), "image:1", "true")[1:]
    assert runs.is_dir()
