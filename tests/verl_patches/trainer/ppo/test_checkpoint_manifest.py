# SPDX-License-Identifier: Apache-2.0
"""verl's trainer ends a save with a manifest of what every worker wrote, and leaves none where they disagree."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.trainer.ppo.ray_trainer import RayPPOTrainer
from verl.utils.tracking import Tracking

from recipe.checkpoints import NotWhole, look
from verl_patches.trainer.ppo import checkpoint_manifest
from verl_patches.trainer.ppo.checkpoint_manifest import share_out

PATCH = "verl_patches.trainer.ppo.ray_trainer:_save_checkpoint"
LOG = "verl_patches.utils.tracking:tracking_log"


class Worker:
    """In place of a Ray actor: what is asked of it is done at once, and noted."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.__ray_call__ = SimpleNamespace(remote=self._call)

    def _call(self, function: Callable[..., Any], checkpoint: str, names: list[str]) -> Any:
        self.names += names
        return function(self, checkpoint, names)


class Group:
    def __init__(self, size: int) -> None:
        self.workers = [Worker() for _ in range(size)]
        self.max_ckpt_to_keep: Any = "not asked"

    def save_checkpoint(self, path: str, remote: None, step: int, max_ckpt_to_keep: int | None) -> None:
        self.max_ckpt_to_keep = max_ckpt_to_keep
        weights = Path(path) / "dist_ckpt"
        weights.mkdir(parents=True)
        for rank in range(len(self.workers)):
            for number in range(2):
                (weights / f"__{rank}_{number}.distcp").write_bytes(bytes([rank]) * 1000)
        for name in (".metadata", "common.pt", "metadata.json"):
            (weights / name).write_text(name)


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What verl's `_save_checkpoint` needs of a trainer, at step 4 of a run that keeps what it saves."""
    monkeypatch.setattr(checkpoint_manifest.ray, "get", lambda values: values)
    monkeypatch.setenv("RECIPE_RUN_DIR", str(tmp_path))
    settings = {"argv": [], "config": {"run": {"steps": 9}}, "accepted": ["train.learning_rate"]}
    (tmp_path / "command.json").write_text(json.dumps(settings))
    options = {"default_local_dir": str(tmp_path / "saved"), "default_hdfs_dir": None, "max_actor_ckpt_to_keep": None}
    return SimpleNamespace(
        config=OmegaConf.create({"trainer": options}),
        global_steps=4,
        actor_rollout_wg=Group(3),
        use_critic=False,
        train_dataloader=SimpleNamespace(state_dict=dict),
    )


@pytest.fixture
def logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "metrics.jsonl"))
    return Tracking("project", "run", ["file"], {})


@pytest.mark.proves(PATCH, LOG)
def test_a_save_ends_with_a_manifest_of_every_file(trainer: Any, logger: Tracking, tmp_path: Path) -> None:
    RayPPOTrainer._save_checkpoint(trainer)
    (checkpoint,) = look(tmp_path / "saved")
    assert checkpoint.unfinished, "the metrics of the step are not there"
    logger.log(data={"loss": 1.0}, step=4)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["step"] == 4
    (checkpoint,) = look(tmp_path / "saved")
    assert checkpoint.whole and checkpoint.step == 4 and checkpoint.manifest is not None
    assert checkpoint.manifest.run == {"config": {"run": {"steps": 9}}, "accepted": ["train.learning_rate"]}
    files = checkpoint.manifest.files
    assert {"data.pt", "random/trainer.json"} <= files.keys() and len(files) == 11
    group = trainer.actor_rollout_wg
    for rank, worker in enumerate(group.workers):
        shards = [name for name in worker.names if name.endswith(".distcp")]
        assert shards == [f"actor/dist_ckpt/__{rank}_{number}.distcp" for number in range(2)]
    assert group.max_ckpt_to_keep is None


@pytest.mark.proves(PATCH)
def test_a_worker_that_sees_another_file_leaves_the_save_unfinished(
    trainer: Any, logger: Tracking, tmp_path: Path
) -> None:
    worker = trainer.actor_rollout_wg.workers[1]
    honest = worker._call

    def other(function: Any, checkpoint: str, names: list[str]) -> Any:
        return {name: (size + 1, digest) for name, (size, digest) in honest(function, checkpoint, names).items()}

    worker.__ray_call__.remote = other
    with pytest.raises(NotWhole, match=r"__1_0\.distcp has 1000 bytes for the trainer and 1001 for the worker"):
        RayPPOTrainer._save_checkpoint(trainer)
    logger.log(data={}, step=4)
    (checkpoint,) = look(tmp_path / "saved")
    assert checkpoint.unfinished and not checkpoint.whole


def test_a_worker_that_answers_for_less_is_noticed(trainer: Any, tmp_path: Path) -> None:
    trainer.actor_rollout_wg.workers[2].__ray_call__.remote = lambda *args: {}
    with pytest.raises(
        NotWhole, match=r"nobody has summed .*__2_0\.distcp, .*__2_1\.distcp, .*; expected storage on which"
    ):
        RayPPOTrainer._save_checkpoint(trainer)


def test_without_a_launcher_the_manifest_tells_no_settings(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECIPE_RUN_DIR")
    assert checkpoint_manifest.run_settings() == {}


@given(st.lists(st.text("_0123456789.adistcp/", min_size=1), unique=True), st.integers(1, 5))
def test_every_file_is_given_to_one_rank(names: list[str], ranks: int) -> None:
    parts = share_out(names, ranks)
    assert len(parts) == ranks and sorted(name for part in parts for name in part) == sorted(names)


def test_files_of_ranks_that_are_gone_are_summed_too() -> None:
    assert share_out(["a/__7_0.distcp", "a/__1_1.distcp"], 2) == [["a/__7_0.distcp"], ["a/__1_1.distcp"]]
