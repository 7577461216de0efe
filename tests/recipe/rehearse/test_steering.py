# SPDX-License-Identifier: Apache-2.0
"""What is told to code that would look at contents: choices of experts, lengths, single numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recipe.rehearse import steering
from recipe.rehearse.steering import Numbers, chosen_experts, packed_tokens


@given(
    tokens=st.integers(1, 200),
    layout=st.sampled_from([(256, 8, 32), (256, 8, 256), (256, 8, 2), (8, 4, 2), (8, 4, 8), (64, 6, 4)]),
    rank=st.integers(0, 255),
    load=st.floats(0, 2),
)
def test_each_token_has_its_experts_and_the_busy_ones_get_their_share(
    tokens: int, layout: tuple[int, int, int], rank: int, load: float
) -> None:
    experts, per_token, ranks = layout
    local = experts // ranks
    busy = range(rank % ranks * local, (rank % ranks + 1) * local)
    share = load * per_token * local / experts
    if not per_token - (experts - local) <= share <= min(per_token, local):
        with pytest.raises(ValueError, match="cannot be sent"):
            chosen_experts(tokens, experts, per_token, busy, load)
        return
    chosen = chosen_experts(tokens, experts, per_token, busy, load)
    assert chosen.shape == (tokens, experts) and set(chosen.unique().tolist()) <= {0.0, 1.0}
    assert (chosen.sum(1) == per_token).all()
    to_busy = chosen[:, busy.start : busy.stop]
    assert abs(to_busy.sum().item() - tokens * share) <= 1
    others = chosen[:, [expert for expert in range(experts) if expert not in busy]]
    for part in (to_busy, others):
        counts = part.sum(0)
        assert not counts.numel() or counts.max() - counts.min() <= 1


def test_the_choice_survives_expert_groups() -> None:
    """DeepSeek-V3's router looks at four groups of 32 experts only, those whose two best score highest."""
    chosen = chosen_experts(1000, 256, 8, range(64, 72), load=2.5)
    scores = torch.sigmoid(chosen)
    best = scores.view(1000, 8, 32).topk(2, dim=-1)[0].sum(-1).topk(4, dim=-1)[1]
    in_groups = torch.zeros(1000, 8).scatter_(1, best, 1.0).repeat_interleave(32, dim=1)
    kept = torch.zeros(1000, 256).scatter_(1, (scores * in_groups).topk(8, dim=-1)[1], 1.0)
    assert torch.equal(kept, chosen)


def test_tokens_are_counted_as_they_are_packed() -> None:
    mask = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    assert packed_tokens(mask, 1) == 8
    assert packed_tokens(mask, 4) == 4 + 8


def test_a_reader_that_is_known_gets_its_number_and_another_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = Numbers()
    with pytest.raises(RuntimeError, match=r"test_steering:test_a_reader.* reads a number by aten::item .*float32"):
        numbers("aten::item", torch.float32)
    reader = f"{__name__}:test_a_reader_that_is_known_gets_its_number_and_another_one_is_named"
    monkeypatch.setitem(steering.NUMBERS, reader, 2.5)
    assert [numbers("aten::item", torch.float32), numbers("aten::item", torch.float32)] == [2.5, 2.5]
    assert numbers.given == {reader: 2}
