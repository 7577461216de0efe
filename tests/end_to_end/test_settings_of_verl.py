# SPDX-License-Identifier: Apache-2.0
"""A run with settings of verl that no key of ours gives, and a tracker: both reach verl, and tokens reach no file."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recipe.report.metrics import read_steps
from tests.end_to_end.test_run import check_finished_run, launch, run_file

pytestmark = pytest.mark.slow
TOKEN = "a-token-that-nobody-else-has"


def test_a_run_in_dynamic_batches_is_followed_by_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run_file(tmp_path, "sim.toml")
    text = path.read_text(encoding="utf-8").replace("seed = 1", 'seed = 1\ntrackers = ["tensorboard"]', 1)
    text = text.replace('"npu_on_policy"', '"vanilla"')
    text += "\n[verl.actor_rollout_ref.actor]\nuse_dynamic_bsz = true\nppo_max_token_len_per_gpu = 2048\n"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setenv("WANDB_API_KEY", TOKEN)
    check_finished_run(tmp_path / "run", launch(tmp_path, path, "run", 2), dies=2)

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    steps = [step for step in read_steps(tmp_path / "run" / "metrics.jsonl") if step.trained]
    assert len(steps) == 2
    for name in ("actor/grad_norm", "critic/score/mean", "response_length/mean"):
        told = {event.step: event.value for event in events.Scalars(name)}
        assert told == {step.number: pytest.approx(step.values[name], rel=1e-6) for step in steps}
    assert "use_dynamic_bsz=true" in (tmp_path / "run" / "command.json").read_text(encoding="utf-8")
    with_token = [
        file for file in (tmp_path / "run").rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()
    ]
    assert with_token == []
