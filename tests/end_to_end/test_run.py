# SPDX-License-Identifier: Apache-2.0
"""The whole recipe with the real upstreams on the simulated NPU: a run that finishes, and runs that are disturbed.

The model is barely warmed up, so nothing is learnt here; what is checked is that the stack works and ends cleanly.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from recipe.__main__ import main
from recipe.launch.processes import ray_workers
from recipe.recorder import read_events
from recipe.report.marks import read_marks

REPO = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for runs and cache of this module, so that the model is made once."""
    return tmp_path_factory.mktemp("runs")


def run_file(directory: Path, name: str) -> Path:
    text = (REPO / "configs" / name).read_text(encoding="utf-8")
    if "sizes" not in text:  # the legal model's own warm start is shorter yet
        text = text.replace('kind = "tiny" ', 'kind = "tiny"\nwarm_start_steps = 40 ')
    text = text.replace("validation_samples = 8", "validation_samples = 1")
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


Start = Callable[[str, str, int], subprocess.Popen[str]]


@pytest.fixture
def launchers() -> Iterator[list[subprocess.Popen[str]]]:
    """Launchers that were started; those that a failed test leaves are stopped."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for launcher in started:
        if launcher.poll() is None:
            launcher.terminate()
            launcher.communicate(timeout=60)


@pytest.fixture
def start(runs: Path, launchers: list[subprocess.Popen[str]]) -> Start:
    def start_one(config: str, name: str, steps: int) -> subprocess.Popen[str]:
        launchers.append(launch(runs, run_file(runs, config), name, steps))
        return launchers[-1]

    return start_one


def launch(runs: Path, file: Path, name: str, steps: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "recipe", "launch", str(file), "--name", name]
    return subprocess.Popen(
        [*command, "--steps", str(steps)],
        cwd=REPO,
        env={**os.environ, "RECIPE_RUNS": str(runs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def launched(runs: Path, file: Path, name: str, steps: int) -> Iterator[subprocess.Popen[str]]:
    """A launcher that is stopped where the block leaves it running."""
    launcher = launch(runs, file, name, steps)
    try:
        yield launcher
    finally:
        if launcher.poll() is None:
            launcher.terminate()
            launcher.communicate(timeout=60)


def run_id(run_dir: Path) -> str:
    return str(json.loads((run_dir / "command.json").read_text(encoding="utf-8"))["environment"]["RECIPE_RUN_ID"])


def processes_of(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RECIPE_RUN_ID") == mark:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def until(condition: Callable[[], object], launcher: subprocess.Popen[str], limit_s: float = 600) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert launcher.poll() is None, "".join(launcher.communicate())
        assert time.monotonic() < end, "timed out"
        time.sleep(0.2)


def workers(run_dir: Path) -> list[psutil.Process]:
    return ray_workers(processes_of(run_id(run_dir)), "WorkerDict")


def first_step_done(run_dir: Path) -> bool:
    path = run_dir / "metrics.jsonl"
    return path.is_file() and '"step": 1,' in path.read_text(encoding="utf-8")


def check_nothing_left(run_dir: Path) -> None:
    assert processes_of(run_id(run_dir)) == []
    command = json.loads((run_dir / "command.json").read_text(encoding="utf-8"))["argv"]
    (temp,) = [item.partition("=")[2] for item in command if "_temp_dir=" in item]
    assert not Path(temp).exists()


@pytest.mark.parametrize(("config", "dies"), [("sim.toml", 2), ("sim_4die.toml", 4), ("sim_balance.toml", 4)])
def test_a_run_finishes_with_its_report(runs: Path, start: Start, config: str, dies: int) -> None:
    name = Path(config).stem
    check_finished_run(runs / name, start(config, name, steps=2), dies)
    steps = [event for event in read_events(runs / name) if event["kind"] == "rollout_steps"]
    assert len(steps) >= 2 * dies
    if name == "sim_balance":
        assert all(event["graphs"] and set(event["graphs"]) <= {"2", "4", "8", "16", "32", "64"} for event in steps)


def check_finished_run(run_dir: Path, launcher: subprocess.Popen[str], dies: int) -> None:
    output, error = launcher.communicate(timeout=600)
    assert launcher.returncode == 0, error + output
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    assert (summary["status"], summary["steps"]) == ("finished", 2)
    assert summary["released_bytes_max"] <= 4 * 2**20
    assert summary["rollout_actor_pearson_min"] >= 0.99
    assert summary["rollout_actor_kl_abs_max"] <= 1e-2
    assert summary["rss_peak_bytes"] <= 10 * 2**30
    roles = [process["role"] for process in summary["processes"]]
    assert roles.count("driver") == 1 and sum(role.startswith("WorkerDict") for role in roles) == dies
    (verdict,) = [event for event in read_events(run_dir) if event["kind"] == "overlay"]
    assert (verdict["workers"], verdict["differences"]) == (dies, []), "all workers had the same patches"
    assert (run_dir / "report.html").is_file()
    check_nothing_left(run_dir)


def test_a_run_asks_for_nothing_that_an_npu_refuses(runs: Path, start: Start) -> None:
    check_finished_run(runs / "sim_legal", start("sim_legal.toml", "sim_legal", steps=2), dies=2)
    levels = re.findall(r"simulated NPU .*, process (\d+): .*; (.*)", (runs / "sim_legal/logs/driver.log").read_text())
    # The driver, verl's task runner, and a worker for each die.
    assert len({process for process, _ in levels}) >= 4
    assert {level for _, level in levels} == {"strict: what an NPU does not take is refused"}
    assert all(one["actor/grad_norm"] > 0 for one in metrics(runs / "sim_legal"))


@pytest.mark.mindspeed
def test_a_run_with_mindspeed_finishes_and_its_actor_agrees_with_the_rollout(
    runs: Path, start: Start, mindspeed_upstream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECIPE_UPSTREAM", str(mindspeed_upstream))
    run_dir = runs / "mindspeed"
    check_finished_run(run_dir, start("sim.toml", "mindspeed", steps=2), dies=2)
    # This hardly trained model does not separate the two much: without the right softmax scale it is 0.9994.
    assert json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))["rollout_actor_pearson_min"] >= 0.9998
    lines = [json.loads(line) for line in (run_dir / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    scale = "mindspeed_patches.core.transformer.flash_attention.flash_attention.adaptor:"
    found = [(one["pid"], one["status"]) for one in lines if one["patch"].startswith(scale)]
    assert len(set(found)) == 2 and {status for _, status in found} == {"applied"}, found
    stepped_aside = [one for one in lines if one["patch"] == "megatron_patches.core.extensions:transformer_engine"]
    assert stepped_aside and {one["status"] for one in stepped_aside} == {"skipped"}


def test_a_run_on_adopted_trees_finishes_and_imports_them(
    runs: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied in by hand and without our line: the run shows them through `upstream/`, with ours in them."""
    upstream = Path(os.environ["RECIPE_UPSTREAM"] if "RECIPE_UPSTREAM" in os.environ else REPO / "upstream")
    theirs, packages = tmp_path / "theirs", {"megatron", "verl", "vllm", "vllm_ascend"}
    for package in packages:
        shutil.copytree(upstream / package, theirs / package, ignore=shutil.ignore_patterns("__pycache__"))
    workers_file = theirs / "verl" / "workers" / "megatron_workers.py"
    text = workers_file.read_text(encoding="utf-8").replace("from verl_patches import prelude_patch\n", "")
    workers_file.write_text(text, encoding="utf-8")
    for name, value in (("RECIPE_UPSTREAM", str(tmp_path / "tree")), ("PYTHONDONTWRITEBYTECODE", "")):
        monkeypatch.setenv(name, value)
    assert main(["sync", "--adopt", str(theirs)]) == 0
    check_finished_run(runs / "adopted", start("sim.toml", "adopted", 2), dies=2)
    # Python keeps the bytecode of a module beside the file that it was imported from.
    assert {file.relative_to(theirs).parts[0] for file in theirs.rglob("*.pyc")} == packages
    assert workers_file.read_text(encoding="utf-8") == text


def metrics(run_dir: Path) -> list[dict[str, float]]:
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["data"] for line in lines if json.loads(line)["step"] > 0]


def test_the_on_policy_loss_trains_the_same_without_the_pass_for_old_log_probabilities(runs: Path) -> None:
    found = {}
    for mode in ("vanilla", "npu_on_policy"):
        file = run_file(runs, "sim.toml")
        text = file.read_text(encoding="utf-8")
        assert text.count('loss_mode = "npu_on_policy"') == 1
        file.write_text(text.replace('"npu_on_policy"', f'"{mode}"'), encoding="utf-8")
        output, error = launch(runs, file, mode, steps=3).communicate(timeout=600)
        assert (runs / mode / "metrics.jsonl").is_file(), error + output
        found[mode] = metrics(runs / mode)
        passes = [event for event in read_events(runs / mode) if event.get("phase") == "log_prob"]
        assert len(passes) == (6 if mode == "vanilla" else 0), "one on each of two dies in each of three steps"
    pairs = list(zip(found["vanilla"], found["npu_on_policy"], strict=True))
    assert len(pairs) == 3
    for vanilla, on_policy in pairs:
        for name in ("actor/grad_norm", "actor/pg_loss", "actor/kl_loss", "critic/score/mean", "response_length/mean"):
            assert on_policy[name] == pytest.approx(vanilla[name], rel=1e-6), name
        assert vanilla["actor/grad_norm"] > 0
        # The passes of the update have other batches than those without gradients, so the last bits differ.
        compared = {name for name in vanilla if name.startswith("training/rollout_")} | {"actor/entropy"}
        assert compared == {name for name in on_policy if name.startswith("training/rollout_")} | {"actor/entropy"}
        for name in compared:
            assert on_policy[name] == pytest.approx(vanilla[name], rel=0.02, abs=2e-4), name
        assert all(math.isfinite(value) for value in on_policy.values() if isinstance(value, float))


def test_a_killed_worker_ends_the_run(runs: Path, start: Start) -> None:
    launcher = start("sim.toml", "killed", steps=50)
    run_dir = runs / "killed"
    until(lambda: first_step_done(run_dir), launcher)
    workers(run_dir)[0].kill()
    _, error = launcher.communicate(timeout=120)
    assert launcher.returncode == 1
    assert error.count("\n") == 1 and error.startswith("error: after step "), error
    check_nothing_left(run_dir)
    assert json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))["status"] == "failed"


def test_a_policy_that_dies_is_stopped_within_five_steps(runs: Path) -> None:
    file, run_dir = run_file(runs, "sim.toml"), runs / "dead"
    text = file.read_text(encoding="utf-8").replace("[run]", "[run]\nsave_every = 1")
    file.write_text(text.replace("learning_rate = 3e-4", "learning_rate = 1e4"), encoding="utf-8")
    launcher = launch(runs, file, "dead", steps=12)
    output, error = launcher.communicate(timeout=600)
    assert launcher.returncode == 3, error + output
    assert error.count("\n") == 1 and "the watch has stopped the run: " in error
    result = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    assert (result["status"], result["rule"] in ("zero_gradient", "entropy_high")) == ("stopped", True), result
    done = metrics(run_dir)
    assert len(done) <= 5 and done[0]["critic/score/mean"] > 0 and done[-1]["critic/score/mean"] == 0
    # The first update ruined the weights, and with them the first checkpoint.
    assert result["last_good_checkpoint"] is None and "no saved checkpoint is known to be good" in error
    marks = [mark for mark in read_marks(run_dir) if mark.kind == "stop"]
    assert marks and marks[0].step == len(done)
    told = subprocess.run(
        [sys.executable, "-m", "recipe", "doctor", str(run_dir)], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert told.returncode == 2 and f"stop at step {len(done)}: {result['rule']}: " in told.stdout
    check_nothing_left(run_dir)


def test_ctrl_c_ends_the_run(runs: Path, start: Start) -> None:
    launcher = start("sim.toml", "interrupted", steps=50)
    run_dir = runs / "interrupted"
    until(lambda: (run_dir / "command.json").is_file() and workers(run_dir), launcher)
    launcher.send_signal(signal.SIGINT)
    _, error = launcher.communicate(timeout=60)
    assert (launcher.returncode, error) == (130, "error: stopped by SIGINT\n")
    check_nothing_left(run_dir)


@pytest.mark.parametrize("name", ["plain", pytest.param("mindspeed", marks=pytest.mark.mindspeed)])
def test_a_killed_run_is_resumed_from_its_checkpoint(
    runs: Path,
    launchers: list[subprocess.Popen[str]],
    name: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name == "mindspeed":
        monkeypatch.setenv("RECIPE_UPSTREAM", str(request.getfixturevalue("mindspeed_upstream")))
    file, run_dir = run_file(runs, "sim.toml"), runs / f"resumed-{name}"
    file.write_text(file.read_text(encoding="utf-8").replace("[run]", "[run]\nsave_every = 2"), encoding="utf-8")
    manifest = run_dir / "checkpoints" / "global_step_2" / "checkpoint.json"
    launchers.append(launch(runs, file, run_dir.name, 4))
    until(manifest.is_file, launchers[-1])
    workers(run_dir)[0].kill()
    launchers[-1].communicate(timeout=120)
    assert launchers[-1].returncode == 1
    launchers.append(launch(runs, file, run_dir.name, 4))
    output, error = launchers[-1].communicate(timeout=600)
    assert launchers[-1].returncode == 0, error + output
    assert f"going on in {run_dir} from its checkpoint of step 2\n" in output
    steps = [data["training/global_step"] for data in metrics(run_dir)]
    assert steps == [1, 2, 3, 4], "every step once"
    third = metrics(run_dir)[2]
    # The reference is the model the run started from; an actor that was not restored would be the same.
    assert third["actor/kl_loss"] > 0.01
    assert third["training/rollout_actor_probs_pearson_corr"] >= 0.999
    assert (run_dir / "attempts" / "1" / "logs" / "driver.log").is_file()
    check_nothing_left(run_dir)


# Python imports this in every process that has it on its path. Checkpoint writers are forked, and sync last of all.
SLOW_WRITERS = """
import multiprocessing, os, time
sync = os.fsync
def fsync(number):
    if multiprocessing.parent_process() is not None:
        time.sleep(20)
    sync(number)
os.fsync = fsync
"""


def test_slow_checkpoint_writers_do_not_end_the_run(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On hardware a save takes minutes. Its writers carry the workers' title, come and go; none is a lost worker."""
    upstream = Path(os.environ["RECIPE_UPSTREAM"] if "RECIPE_UPSTREAM" in os.environ else REPO / "upstream")
    for entry in upstream.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "sitecustomize.py").write_text(SLOW_WRITERS, encoding="utf-8")
    monkeypatch.setenv("RECIPE_UPSTREAM", str(tmp_path))
    file, run_dir = run_file(runs, "sim.toml"), runs / "slow"
    file.write_text(file.read_text(encoding="utf-8").replace("[run]", "[run]\nsave_every = 1"), encoding="utf-8")
    started = time.monotonic()
    launcher = launch(runs, file, run_dir.name, 12)
    locks = set(Path(tempfile.gettempdir()).glob("ckpt_*.lock"))
    try:
        output, error = launcher.communicate(timeout=900)
    finally:
        launcher.terminate()
    assert launcher.returncode == 0, error + output
    assert time.monotonic() - started > 12 * 20, "the writers were slow"
    assert [data["training/global_step"] for data in metrics(run_dir)] == list(range(1, 13))
    forks = [event for event in read_events(run_dir) if "fork of ray::WorkerDict" in event.get("rss_by_name", {})]
    assert len(forks) > 12, "they were seen, and not taken for workers"
    assert set(Path(tempfile.gettempdir()).glob("ckpt_*.lock")) == locks, "verl's lock files are gone with the run"
    check_nothing_left(run_dir)
