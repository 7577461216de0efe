# SPDX-License-Identifier: Apache-2.0
"""A rerun goes on from the last whole checkpoint, or says why not; nothing of an earlier attempt is lost."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.launch.config import RunConfig, load
from recipe.launch.environment import REPO
from recipe.launch.errors import AlreadyFinished, ConfigError, LaunchError
from recipe.launch.progress import Clock
from recipe.launch.resume import Start, begin_attempt, only_launcher, open_run, whole_checkpoints

SIM = load(REPO / "configs" / "sim.toml").with_run(save_every=2, steps=10)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run that was stopped after step 5 and had saved steps 2 and 4."""
    directory = tmp_path / "sim"
    (directory / "logs").mkdir(parents=True)
    (directory / "logs" / "driver.log").write_text("first attempt")
    (directory / "command.json").write_text(json.dumps({"config": dataclasses.asdict(SIM)}))
    (directory / "result.json").write_text("{}")
    lines = [json.dumps({"step": step, "data": {}}) for step in range(6)]
    (directory / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 6, "da')
    for step in (2, 4):
        save(directory / "checkpoints", step)
    return directory


def save(checkpoints: Path, step: int) -> Path:
    weights = checkpoints / f"global_step_{step}" / "actor" / "dist_ckpt"
    weights.mkdir(parents=True)
    for path in (weights / ".metadata", weights / "metadata.json", checkpoints / f"global_step_{step}" / "data.pt"):
        path.touch()
    (checkpoints / "latest_checkpointed_iteration.txt").write_text(str(step))
    return checkpoints / f"global_step_{step}"


def opened(run_dir: Path, config: RunConfig = SIM, fresh: bool = False, checkpoints: Path | None = None) -> Any:
    said = io.StringIO()
    return open_run(config, run_dir, checkpoints or run_dir / "checkpoints", fresh, Clock(said)), said.getvalue()


def test_it_goes_on_after_the_last_checkpoint(run_dir: Path) -> None:
    start, said = opened(run_dir)
    assert start == Start(run_dir, run_dir / "checkpoints" / "global_step_4") and start.step == 4
    assert f"going on in {run_dir} from its checkpoint of step 4" in said
    (run_dir / "nodes" / "10.0.0.2" / "logs").mkdir(parents=True)
    (run_dir / "nodes" / "10.0.0.2" / "logs" / "ray-start.log").write_text("of the first attempt")
    begin_attempt(start)
    kept = [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert kept == [0, 1, 2, 3, 4]
    aside = run_dir / "attempts" / "1"
    assert (aside / "logs" / "driver.log").read_text() == "first attempt"
    assert (aside / "nodes" / "10.0.0.2" / "logs" / "ray-start.log").read_text() == "of the first attempt"
    assert (aside / "metrics.jsonl").read_text().endswith('{"step": 6, "da')
    assert (run_dir / "logs").is_dir() and not (run_dir / "result.json").exists()
    assert start.overrides() == [
        "trainer.resume_mode=resume_path",
        f"trainer.resume_from_path={run_dir}/checkpoints/global_step_4",
        "trainer.val_before_train=false",
    ]


def test_an_attempt_that_died_before_it_had_derived_anything_is_gone_on_from(run_dir: Path) -> None:
    begin_attempt(opened(run_dir)[0])
    start, _ = opened(run_dir)  # nothing but the first attempt's command.json tells what the run is
    assert start.step == 4
    begin_attempt(start)
    assert (run_dir / "attempts" / "2").is_dir()


@pytest.mark.parametrize("gone", ["actor/dist_ckpt/.metadata", "actor/dist_ckpt/metadata.json", "data.pt"])
def test_a_checkpoint_that_was_not_written_to_its_end_is_left_out(run_dir: Path, gone: str) -> None:
    (run_dir / "checkpoints" / "global_step_4" / gone).unlink()
    assert opened(run_dir)[0].step == 2


def test_a_checkpoint_that_verl_has_not_announced_is_left_out(run_dir: Path) -> None:
    (run_dir / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("2")
    assert opened(run_dir)[0].step == 2


def test_without_a_whole_checkpoint_it_begins_anew_and_keeps_the_earlier(run_dir: Path) -> None:
    for step in (2, 4):
        (run_dir / "checkpoints" / f"global_step_{step}" / "data.pt").unlink()
    start, said = opened(run_dir)
    assert start == Start(run_dir) and list(run_dir.iterdir()) == [run_dir / "logs"]
    assert "its checkpoints (global_step_2, global_step_4) are not whole" in said
    assert (run_dir.with_name("sim.1") / "metrics.jsonl").is_file()
    assert start.overrides() == ["trainer.resume_mode=disable"]
    start, said = opened(run_dir)
    assert "it has saved no checkpoint" in said and run_dir.with_name("sim.2").is_dir()


@pytest.mark.parametrize("asked", ["--fresh", "resume"])
def test_anew_if_asked(run_dir: Path, asked: str) -> None:
    config = SIM.with_run(resume="never") if asked == "resume" else SIM
    start, said = opened(run_dir, config, fresh=asked == "--fresh")
    assert start.checkpoint is None and "asked to begin anew" in said
    assert (run_dir.with_name("sim.1") / "checkpoints" / "global_step_4").is_dir()


def test_checkpoints_elsewhere_are_kept_apart_too(run_dir: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "fast disk" / "sim"
    save(elsewhere, 8)
    assert opened(run_dir, checkpoints=elsewhere)[0].step == 8
    opened(run_dir, fresh=True, checkpoints=elsewhere)
    assert not elsewhere.exists() and elsewhere.with_name("sim.1").is_dir()


def test_checkpoints_of_an_unknown_run_are_not_touched(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere", 8)
    with pytest.raises(ConfigError, match=r"elsewhere holds checkpoints, but .*sim, which would tell what of, is not"):
        opened(tmp_path / "sim", checkpoints=tmp_path / "elsewhere")
    assert not (tmp_path / "sim").exists()


def test_another_run_file_is_refused_by_the_keys_that_differ(run_dir: Path) -> None:
    other = dataclasses.replace(SIM, train=dataclasses.replace(SIM.train, learning_rate=1e-6))
    before = sorted(run_dir.rglob("*"))
    with pytest.raises(ConfigError, match=r"\[train\] learning_rate is 1e-06 now and 0.0003 before\. Put that back"):
        opened(run_dir, other)
    assert sorted(run_dir.rglob("*")) == before


def test_longer_and_elsewhere_is_the_same_run(run_dir: Path) -> None:
    cluster = dataclasses.replace(SIM.cluster, head="10.0.0.7", ray_port=7000, wait_deadline_s=5)
    other = dataclasses.replace(SIM, cluster=cluster).with_run(steps=20, save_every=5)
    assert opened(run_dir, other)[0].step == 4


def test_a_finished_run_says_so(run_dir: Path) -> None:
    with pytest.raises(AlreadyFinished, match=r"has finished 4 of 4 steps; to go on, raise \[run\] steps"):
        opened(run_dir, SIM.with_run(steps=4))


def test_two_launchers_do_not_work_on_one_run(tmp_path: Path) -> None:
    with (
        only_launcher("sim", tmp_path / "sim"),
        pytest.raises(LaunchError, match=r"another launcher \(pid \d+\) is at work on run sim"),
        only_launcher("sim", tmp_path / "sim"),
    ):
        pass
    with only_launcher("sim", tmp_path / "sim"):
        pass


@pytest.mark.parametrize("name", ["", ".hidden", "a b", "x" * 65, "a/b", "../b"])
def test_a_name_that_is_no_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="use letters, digits"), only_launcher(name, tmp_path / name):
        pass


@given(st.sets(st.integers(1, 10**6), max_size=6), st.integers(0, 10**6))
def test_whole_checkpoints_are_in_order_and_none_is_later_than_announced(
    tmp_path_factory: pytest.TempPathFactory, steps: set[int], latest: int
) -> None:
    directory = tmp_path_factory.mktemp("checkpoints")
    for step in steps:
        save(directory, step)
    (directory / "latest_checkpointed_iteration.txt").write_text(str(latest))
    assert [path.name for path in whole_checkpoints(directory)] == [
        f"global_step_{step}" for step in sorted(steps) if step <= latest
    ]
