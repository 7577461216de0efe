# SPDX-License-Identifier: Apache-2.0
"""A resumed trainer's process draws, counts epochs and goes on in the data as the first would have."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.trainer.ppo.ray_trainer import RayPPOTrainer
from verl.utils.tracking import Tracking

from verl_patches.random_states import DIRECTORY, RandomStatesError
from verl_patches.trainer.ppo import epochs, ray_trainer
from verl_patches.trainer.ppo.random_states import FILE
from verl_patches.utils.dataset.shuffle import ResumableShuffle
from verl_patches.workers.rollout.vllm_rollout.kv_cache import preserved_random_states

EPOCH = 3  # steps


@pytest.fixture(autouse=True)
def process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(epochs, "_steps_per_epoch", None)
    # The manifest is of workers that there are none of.
    monkeypatch.setattr(ray_trainer, "finish_save", lambda checkpoint, step, workers: None)
    with preserved_random_states():
        yield


class Workers:
    """verl's worker group, whose checkpoints are directories."""

    workers = ()

    def save_checkpoint(self, path: str, *_: Any, **__: Any) -> None:
        Path(path).mkdir(parents=True)

    def load_checkpoint(self, *_: Any, **__: Any) -> None: ...


def trainer(directory: Path, resumed_from: int | None = None) -> Any:
    """What saving and loading touch of verl's trainer, in a process that has just begun."""
    settings: dict[str, Any] = {"default_local_dir": str(directory), "default_hdfs_dir": None}
    settings |= {"resume_mode": "disable", "del_local_ckpt_after_load": False}
    if resumed_from is not None:
        path = str(directory / f"global_step_{resumed_from}")
        settings |= {"resume_mode": "resume_path", "resume_from_path": path}
    rows = list(range(2 * EPOCH))
    sampler = ResumableShuffle(rows, SimpleNamespace(seed=1))
    return SimpleNamespace(
        config=OmegaConf.create({"trainer": settings}),
        global_steps=0,
        use_critic=False,
        actor_rollout_wg=Workers(),
        train_dataloader=StatefulDataLoader(rows, batch_size=2, num_workers=0, sampler=sampler),
    )


def train(trainer_under_test: Any, until: int, save_at: int | None = None) -> list[Any]:
    """verl's loop: of every step the epoch that verl counts, its problems, and what the process draws in it."""
    seed = 1 if trainer_under_test.config.trainer.resume_mode == "disable" else 2  # a resumed process has other states
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    RayPPOTrainer._load_checkpoint(trainer_under_test)
    done = []
    for epoch in itertools.count():
        for batch in trainer_under_test.train_dataloader:
            trainer_under_test.global_steps += 1
            drawn = [random.random(), np.random.rand(), torch.rand(1).item()]
            done.append((logged({"training/epoch": epoch}, trainer_under_test.global_steps), batch.tolist(), drawn))
            if trainer_under_test.global_steps == save_at:
                RayPPOTrainer._save_checkpoint(trainer_under_test)
            if trainer_under_test.global_steps == until:
                return done
    raise AssertionError


def logged(metrics: dict[str, Any], step: int) -> Any:
    lines = []
    file = SimpleNamespace(fileno=lambda: -1)
    logger = SimpleNamespace(log=lambda data, step: lines.append((step, data["training/epoch"])), fp=file)
    Tracking.log(SimpleNamespace(logger={"file": logger}), metrics, step)
    return lines


@pytest.mark.proves(
    "verl_patches.trainer.ppo.ray_trainer:_save_checkpoint",
    "verl_patches.trainer.ppo.ray_trainer:_load_checkpoint",
    "verl_patches.utils.tracking:tracking_log",
)
@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6, 7])
def test_a_resumed_trainer_is_the_one_that_saved(tmp_path: Path, step: int) -> None:
    uninterrupted = train(trainer(tmp_path / "whole"), until=3 * EPOCH)
    assert [line[0] for line, _, _ in uninterrupted] == [(k, (k - 1) // EPOCH) for k in range(1, 3 * EPOCH + 1)]
    train(trainer(tmp_path), until=step, save_at=step)
    assert train(trainer(tmp_path, resumed_from=step), until=3 * EPOCH) == uninterrupted[step:]


def test_a_checkpoint_without_states_is_gone_on_from_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(trainer(tmp_path), until=2, save_at=2)
    for path in (tmp_path / "global_step_2" / DIRECTORY).iterdir():
        path.unlink()
    (tmp_path / "global_step_2" / DIRECTORY).rmdir()
    assert len(train(trainer(tmp_path, resumed_from=2), until=4)) == 2
    assert [record.getMessage().count("holds no random states") for record in caplog.records] == [1]


@pytest.mark.parametrize("text", ["", "{}", '{"python": 1}'])
def test_damaged_states_end_the_load_in_one_line(tmp_path: Path, text: str) -> None:
    train(trainer(tmp_path), until=2, save_at=2)
    (tmp_path / "global_step_2" / DIRECTORY / FILE).write_text(text)
    with pytest.raises(RandomStatesError, match=rf"{FILE}, the random states .*go on from an earlier") as caught:
        RayPPOTrainer._load_checkpoint(trainer(tmp_path, resumed_from=2))
    assert "\n" not in str(caught.value)
