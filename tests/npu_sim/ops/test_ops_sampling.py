# SPDX-License-Identifier: Apache-2.0
"""npu_top_k_top_p against sets built token by token."""

import math

import pytest
import torch
import torch_npu
from hypothesis import given, settings
from hypothesis import strategies as st


def kept(logits, p, k):
    """Token numbers that stay."""
    least = sorted(logits, reverse=True)[k - 1]
    among = {i: x for i, x in enumerate(logits) if x >= least}
    peak = max(among.values())
    weight = {i: math.exp(x - peak) for i, x in among.items()}
    total, stay, mass = sum(weight.values()), set(), 0.0
    for i in sorted(among, key=lambda i: among[i], reverse=True):
        if stay and mass / total >= p:
            break
        stay.add(i)
        mass += weight[i]
    return stay


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 4), vocabulary=st.integers(1, 20), data=st.data())
def test_values(batch, vocabulary, data):
    logits = torch.randn(batch, vocabulary) * 2  # no ties, so that the set is unique
    k = data.draw(st.lists(st.integers(1, vocabulary), min_size=batch, max_size=batch))
    p = data.draw(st.lists(st.floats(0.05, 0.95), min_size=batch, max_size=batch))
    out = torch_npu.npu_top_k_top_p(logits.npu(), torch.tensor(p).npu(), torch.tensor(k, dtype=torch.int32).npu()).cpu()
    for row in range(batch):
        stay = kept(logits[row].double().tolist(), p[row], k[row])
        assert {i for i in range(vocabulary) if out[row, i] > -math.inf} == stay
        assert all(out[row, i] == logits[row, i] for i in stay)


def test_ties_with_the_kth_stay_and_p_one_keeps_all():
    logits = torch.tensor([[1.0, 2.0, 2.0, 0.0]]).npu()
    out = torch_npu.npu_top_k_top_p(logits, torch.ones(1).npu(), torch.ones(1, dtype=torch.int32).npu())
    assert torch.isfinite(out.cpu()).tolist() == [[False, True, True, False]]
    out = torch_npu.npu_top_k_top_p(logits, torch.ones(1).npu(), torch.full((1,), 4, dtype=torch.int32).npu())
    assert torch.equal(out.cpu(), logits.cpu())


def test_the_most_probable_token_stays_whatever_p_is():
    logits = torch.tensor([[1.0, 3.0, 2.0]]).npu()
    out = torch_npu.npu_top_k_top_p(logits, torch.zeros(1).npu(), torch.full((1,), 3, dtype=torch.int32).npu())
    assert torch.isfinite(out.cpu()).tolist() == [[False, True, False]]


def test_refuses():
    logits, p, k = torch.randn(2, 5).npu(), torch.ones(2).npu(), torch.ones(2, dtype=torch.int32).npu()
    with pytest.raises(ValueError, match="npu_top_k_top_p: k is of dtype int64"):
        torch_npu.npu_top_k_top_p(logits, p, k.long())
    with pytest.raises(ValueError, match="npu_top_k_top_p: k is between 6 and 6"):
        torch_npu.npu_top_k_top_p(logits, p, k + 5)
    with pytest.raises(ValueError, match="npu_top_k_top_p: p is of shape"):
        torch_npu.npu_top_k_top_p(logits, p[:1], k)
    with pytest.raises(ValueError, match="npu_top_k_top_p: p is of dtype"):
        torch_npu.npu_top_k_top_p(logits, p.bfloat16(), k)
