# SPDX-License-Identifier: Apache-2.0
"""Records of both engines come to lie on each other, whatever the order in which each has computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recipe.mismatch import record
from recipe.mismatch.alignment import align
from recipe.mismatch.record import RecordError
from tests.recipe.mismatch.made_up import DENSE, LAYERS, PROMPT, RANKS, ROWS, Step


def test_the_same_tokens_of_both_engines_lie_at_the_same_place(tmp_path: Path) -> None:
    step = Step()
    aligned = align(step.write(tmp_path))
    assert aligned.origins == [(rank, row) for rank in range(RANKS) for row in range(ROWS)]
    assert aligned.layers_with_experts == list(range(DENSE, LAYERS))
    for number, place in enumerate(aligned.origins):
        answer, length = step.answers[place], len(step.answers[place]["tokens"])
        assert aligned.tokens[number, :length].tolist() == answer["tokens"].tolist()
        assert (aligned.tokens[number, length:] == -1).all()
        for engine, computed in ((aligned.rollout, length - 1), (aligned.actor, length)):
            assert engine.computed[number].sum() == computed
            assert torch.equal(engine.hidden[2][number, :computed], answer["hidden"][2, :computed])
            assert engine.hidden[2][number, computed:].isnan().all()
        assert aligned.sampled[number].sum() == length - PROMPT
        assert torch.equal(aligned.rollout_log_probs[number, : length - PROMPT].float(), answer["log_probs"])


def test_the_bias_is_in_the_scores(tmp_path: Path) -> None:
    step = Step()
    step.write(tmp_path)
    for rank in range(RANKS):
        changed = step.actor(rank) | {f"{record.BIAS}.{LAYERS - 1}": torch.arange(8.0)}
        record.write_record(record.record_path(tmp_path, record.ACTOR, rank), changed)
    aligned = align(tmp_path)
    difference = (aligned.actor.scores[LAYERS - 1] - aligned.rollout.scores[LAYERS - 1])[0, 0]
    assert torch.allclose(difference, torch.arange(8.0), atol=1e-5)


def test_a_record_of_other_answers_is_refused(tmp_path: Path) -> None:
    step = Step()
    step.write(tmp_path)
    other = step.rollout(1)
    other[record.TOKEN] = other[record.TOKEN] + 1
    record.write_record(record.record_path(tmp_path, record.ROLLOUT, 1), other)
    with pytest.raises(RecordError, match="different answers"):
        align(tmp_path)


def test_missing_tokens_are_counted(tmp_path: Path) -> None:
    step = Step()
    step.write(tmp_path)
    partial = {
        name: value[:-2] if value.dim() and name not in (record.ORIGIN,) and not name.startswith(record.BIAS) else value
        for name, value in step.rollout(1).items()
    }
    record.write_record(record.record_path(tmp_path, record.ROLLOUT, 1), partial)
    with pytest.raises(RecordError, match="the rollout has no record of 2 tokens"):
        align(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"no safetensors"])
def test_a_record_that_is_not_there_or_damaged_is_named(tmp_path: Path, content: bytes | None) -> None:
    Step().write(tmp_path)
    for rank in range(RANKS):
        path = record.record_path(tmp_path, record.ROLLOUT, rank)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
    with pytest.raises(RecordError, match=r"--again") as caught:
        align(tmp_path)
    assert str(tmp_path) in str(caught.value)
