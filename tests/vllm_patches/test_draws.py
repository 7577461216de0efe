# SPDX-License-Identifier: Apache-2.0
"""One random number for each token: distributed as the probabilities are, and the same wherever the row is."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_patches.draws import BITS, OPTION, Draw, draw, tokens_by_draws

ID = "vllm_patches.v1.sample.ops.topk_topp_sampler:random_sample"


def probabilities(rows: int, vocabulary: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(3 * torch.randn(rows, vocabulary, generator=generator), dim=-1)


def test_tokens_are_as_frequent_as_they_are_probable() -> None:
    """Chi-squared of 50,000 tokens over 12 that have probability: below the 0.9999 quantile of 11 degrees."""
    row = torch.cat([torch.zeros(3), probabilities(1, 12)[0], torch.zeros(2)])
    count = 50_000
    found = tokens_by_draws(row.repeat(count, 1), {place: draw(99, place) for place in range(count)})
    counts = torch.bincount(found, minlength=17).double()
    assert counts[:3].sum() == counts[15:].sum() == 0
    expected = count * row[3:15].double()
    assert float(((counts[3:15] - expected) ** 2 / expected).sum()) < 37.4


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 10**6))
def test_a_number_follows_from_seed_and_position(seed: int, position: int) -> None:
    one = draw(seed, position)
    assert 0 <= one < 1 and one * (1 << BITS) == int(one * (1 << BITS))
    assert one == draw(seed, position) != draw(seed, position + 1)
    assert one != draw(seed + 1, position)


def test_neighbours_are_not_related() -> None:
    numbers = torch.tensor([[draw(seed, position) for position in range(200)] for seed in range(200)]).double()
    assert abs(float(numbers.mean()) - 0.5) < 0.01
    for one, other in ((numbers[:-1], numbers[1:]), (numbers[:, :-1], numbers[:, 1:])):
        assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 0.02


@pytest.mark.parametrize("device", ["cpu", "npu"])
def test_the_same_row_gets_the_same_token_in_every_batch(device: str) -> None:
    rows = probabilities(7, 501)
    numbers = {row: draw(5, row) for row in range(7)}
    together = tokens_by_draws(rows.to(device), numbers).tolist()
    alone = [tokens_by_draws(rows[row : row + 1].to(device), {0: numbers[row]}).item() for row in range(7)]
    assert together == alone and len(set(together)) > 3


def test_the_ends_and_what_is_masked() -> None:
    row = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]])
    largest = 1 - 2.0**-BITS
    for number, token in ((0.0, 1), (0.25 - 2**-BITS, 1), (0.25, 3), (largest, 3)):
        assert tokens_by_draws(row, {0: Draw(number)}).tolist() == [token]
    # Sums of a device that adds in blocks need not ascend.
    assert tokens_by_draws(torch.tensor([[1e-30, 0.0]]), {0: Draw(largest)}).tolist() == [0]


def test_a_row_without_a_number_is_drawn_by_the_device() -> None:
    rows = torch.full((400, 2), 0.5)
    torch.manual_seed(3)
    found = tokens_by_draws(rows, {0: Draw(0.9), 7: Draw(0.1)})
    assert (found[0], found[7]) == (1, 0)
    assert 0.4 < float(found.float().mean()) < 0.6


@pytest.mark.proves(ID)
def test_vllm_samples_by_the_numbers_when_asked_for() -> None:
    code = f"""
import os; os.environ["{OPTION}"] = "1"
import verl_patches.prelude_patch
import torch, vllm_ascend.patch.worker
from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler
from vllm_patches.draws import Draw
found = TopKTopPSampler().forward_native(torch.zeros(2, 4), {{0: Draw(0.3), 1: Draw(0.9)}}, None, None)
assert found.tolist() == [1, 3], found
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
