# SPDX-License-Identifier: Apache-2.0
"""scripts/launch.sh with real Ray, several nodes on this machine, and a stand-in for the trainer.

Pytest starts the scripts and reads what they say.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.scripts.nodes import HEAD, REPO, Nodes, end_of, marked_in, stand_in_python, until

# What three dies can share.
THREE = {"prompts_per_step": "12", "expert_parallel": "1"}
DAEMONS = ("gcs_server", "raylet")


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    made = Nodes(tmp_path, stand_in_python(tmp_path))
    yield made
    made.end()
    left = marked_in(tmp_path)
    for process in left:
        process.kill()
    assert left == []


@pytest.fixture
def foreign_ray(tmp_path: Path) -> Iterator[dict[int, float]]:
    """Somebody else's Ray on this machine: its processes, by pid, with their start times."""
    port = next(port for port in range(30000, 30100) if _connects(port) != 0)
    temp = Path(tempfile.mkdtemp(prefix="foreign-", dir="/tmp"))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address", "127.0.0.9", "--port", str(port), "--include-dashboard", "false"]
    command += ["--num-cpus", "1", "--object-store-memory", "80000000", "--temp-dir", str(temp)]
    with open(temp / "out", "wb") as out:
        ray = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "RAY_AUTH_MODE": "disabled"})
    try:
        while "Ray runtime started" not in (said := (temp / "out").read_text()):
            assert ray.poll() is None, said
            time.sleep(0.2)
        daemons = [one for one in psutil.Process(ray.pid).children(recursive=True) if one.name() in DAEMONS]
        yield {process.pid: process.create_time() for process in daemons}
    finally:
        ray.terminate()
        ray.wait(timeout=30)
        shutil.rmtree(temp, ignore_errors=True)


def _connects(port: int) -> int:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.9", port))


def alive(processes: dict[int, float]) -> bool:
    return all(psutil.pid_exists(pid) and psutil.Process(pid).create_time() == at for pid, at in processes.items())


def metrics(run_dir: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_three_nodes_run_and_strangers_are_turned_away(
    nodes: Nodes, foreign_ray: dict[int, float], tmp_path: Path
) -> None:
    file = nodes.run_file(nodes="3", dies_per_node="1", steps="2", **THREE)
    elsewhere = tmp_path / "another machine"
    head = nodes.start(file)
    until((tmp_path / "token").is_file, [head])
    shares, remote = nodes.start(file, 2), nodes.start(file, 3, "--node-name", "third", runs=elsewhere)
    # They come last: the run is complete, or they are not who they should be.
    until(lambda: list(nodes.runs.glob("sim/nodes/*")) and list(elsewhere.glob("sim/nodes/*")), [head, shares, remote])
    extra = nodes.start(file, 4)
    (tmp_path / "guess").write_text("0123456789abcdef0123456789abcdef")
    (tmp_path / "guess").chmod(0o600)
    guesser = nodes.start(file, 5, "--token-file", str(tmp_path / "guess"))
    assert (end_of(extra)[0], end_of(guesser)[0]) == (1, 1)
    code, said = end_of(head)
    assert code == 0, said
    assert "turned away 127.0.0.5" in said and "one node too many: the run has 3, and 127.0.0.2, " in said
    assert "turned away a caller from 127.0.0.1: the other end holds another token" in said
    for worker in (shares, remote):
        code, said = end_of(worker)
        assert (code, "the run has finished" in said) == (0, True), said
    run_dir = nodes.runs / "sim"
    driver = (run_dir / "logs" / "driver.log").read_text()
    shared, own = run_dir / "nodes" / "127.0.0.3", elsewhere / "sim" / "nodes" / "third"
    assert f"dies: ['127.0.0.2 {run_dir}', '127.0.0.3 {shared}', '127.0.0.4 {own}']" in driver
    # The logs of the node that does not see the run's directory have come over.
    for name in ("ray-start.log", "ray/raylet.out"):
        assert (run_dir / "nodes" / "third" / "logs" / name).read_bytes() == (own / "logs" / name).read_bytes() != b""
    command = json.loads((run_dir / "command.json").read_text())
    assert command["environment"]["RAY_AUTH_MODE"] == "token"
    assert alive(foreign_ray) and len(foreign_ray) == 2


def test_a_missing_node_is_named_at_the_deadline(nodes: Nodes) -> None:
    hosts = json.dumps([HEAD, "127.0.0.3", "node-that-sleeps"])
    file = nodes.run_file(nodes="3", dies_per_node="1", hosts=hosts, wait_deadline_s="8", **THREE)
    head = nodes.start(file)
    worker = nodes.start(file, 2)
    # On a busy machine the other node's Ray may still be starting by then.
    text = (
        r"[12] of 3 nodes after 8 s: "
        r"(127\.0\.0\.3 has come, but its Ray has not joined; )?node-that-sleeps has not come\n"
    )
    code, said = end_of(head)
    assert code == 1 and re.search("^error: " + text, said, re.MULTILINE), said
    code, said = end_of(worker)
    assert code == 1 and re.search("^error: the run (failed|ended before this node took part): " + text, said, re.M), (
        said
    )
    assert json.loads((nodes.runs / "sim" / "result.json").read_text())["status"] == "failed"


@pytest.mark.slow
def test_lost_nodes_end_the_run_and_the_next_one_goes_on(nodes: Nodes) -> None:
    file = nodes.run_file(nodes="2", dies_per_node="1", steps="5", save_every="2")
    run_dir = nodes.runs / "sim"
    head, worker = nodes.start(file, STAND_IN_STEP="3"), nodes.start(file, 2)
    until(lambda: (run_dir / "metrics.jsonl").is_file() and metrics(run_dir) == [1, 2, 3], [head, worker])
    # Who does not have the token is refused by Ray, on whichever address it listens.
    program = f"import ray; ray.init('{HEAD}:{nodes.base}', _node_ip_address='{HEAD}')"
    guess = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef"}
    for environment in (guess, {"RAY_AUTH_MODE": "disabled"}):
        intruder = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert intruder.returncode != 0 and "AuthenticationError" in intruder.stderr, intruder.stderr
    raylets = [one for one in marked_in(run_dir / "nodes") if one.name() == "raylet"]
    min(raylets, key=psutil.Process.create_time).kill()
    code, said = end_of(head)
    assert code == 1 and "error: after step 3: node 127.0.0.3 (" in said and "its Ray ended: " in said, said
    code, said = end_of(worker)
    assert code == 1 and "error: its Ray ended: " in said, said
    assert marked_in(nodes.runs) == []

    # The next attempt goes on after the checkpoint of step 2; this time the head is killed.
    head, worker = nodes.start(file, STAND_IN_STEP="4"), nodes.start(file, 2)
    until(lambda: metrics(run_dir) == [1, 2, 3, 4], [head, worker])
    head.kill()
    code, said = end_of(head)
    assert code == -signal.SIGKILL and f"going on in {run_dir} from its checkpoint of step 2\n" in said, said
    code, said = end_of(worker)
    assert code == 1 and "error: the head at 127.0.0.2 is gone: the connection was closed\n" in said, said
    until(lambda: marked_in(nodes.runs) == [], [])
    overrides = json.loads((run_dir / "command.json").read_text())["argv"]
    assert f"trainer.resume_from_path={run_dir}/checkpoints/global_step_2" in overrides
    assert (run_dir / "attempts" / "1" / "logs" / "driver.log").is_file()


def test_a_port_in_use_is_found_before_anything_starts(nodes: Nodes) -> None:
    with socket.create_server((HEAD, nodes.base)):
        code, said = end_of(nodes.start(nodes.run_file(nodes="2", dies_per_node="1")))
    assert code == 1 and f"error: port {nodes.base} (Ray, GCS) is in use by " in said, said
    assert not (nodes.runs / "sim").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--interface", "eth77"], "error: interface eth77 does not exist; this machine has "),
        (["--head", "192.0.2.1", "--address", "192.0.2.77"], "error: 192.0.2.77 is not an address of this machine"),
        (["--node-name", "../x"], "error: node name '../x': use letters"),
        (["--ports", "65500"], "error: ports go up to 65571, beyond 65535"),
    ],
)
def test_a_place_that_cannot_be_is_refused(nodes: Nodes, options: list[str], expected: str) -> None:
    code, said = end_of(nodes.start(nodes.run_file(nodes="2", dies_per_node="1"), 1, *options))
    assert code == 2 and expected in said, said


def test_a_second_node_of_a_run_on_one_is_refused(nodes: Nodes) -> None:
    code, said = end_of(nodes.start(nodes.run_file(nodes="1"), 2))
    assert code == 2 and "error: --head is for runs on several nodes, and [cluster] nodes of " in said, said


def test_shellcheck_finds_nothing_in_any_script() -> None:
    scripts = sorted(map(str, REPO.glob("scripts/*.sh")))
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "-x", *scripts], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("script", "config"),
    [
        ("ray_start_grpo_npu.sh", "a3_256die.toml"),
        ("run_grpo_deepseekv3_671b_npu_megatron.sh", "a3_256die.toml"),
        ("train_deepseekv3_256die_random_init.sh", "a3_256die_random_init.toml"),
        ("train_deepseekv3_256die_true_weight.sh", "a3_256die_true_weight.toml"),
    ],
)
def test_the_published_entries_launch_their_run_files(tmp_path: Path, script: str, config: str) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", str(REPO / "scripts" / script), "--head", "a b"],
        env={**os.environ, "RECIPE_VENV": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    *command, file, option, value = done.stdout.splitlines()
    assert (command, option, value) == (["-m", "recipe", "node"], "--head", "a b"), done.stderr
    assert Path(file).resolve() == REPO / "configs" / config and Path(file).is_file()


def test_a_failed_preflight_starts_nothing(nodes: Nodes) -> None:
    file = nodes.run_file(nodes="2", dies_per_node="1", steps="2", temperature="0.5", max_batched_tokens="1")
    code, said = end_of(nodes.start(file, preflight=True))
    assert code == 2 and "the run was not started (docs/PREFLIGHT.md; --no-preflight goes on all the same)" in said, (
        said
    )
    assert not nodes.runs.exists()
