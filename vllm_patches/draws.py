# SPDX-License-Identifier: Apache-2.0
"""Random numbers of a request with a seed: one for each of its tokens, whatever engine, batch or step samples it.

vLLM keeps a generator for each such request and lets it fill a row of the vocabulary's size, by several small kernels
for every request and step; it rewinds the generator where a prompt goes in pieces, by an offset that only CUDA's have.
Here the token at a position is found by one number between 0 and 1, which follows from seed and position: it is the
first token up to which the probabilities add up to more. Nothing has to be rewound, saved or handed over.
"""

# NPU-ADAPTATION: a token's random number follows from its request's seed and its position

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping

import torch

from recipe.overlay import Condition

OPTION = "RECIPE_REQUEST_SEEDS"
# Bits of a number: as many as a float32 below 1 keeps.
BITS = 24


def asked_for() -> bool:
    return os.environ.get(OPTION, "0") == "1"


by_request = Condition(asked_for, otherwise="rollout.request_seeds is false: engines sample with their own generator")


class Draw(float):
    """A request's random number for the token that it is about to get, in [0, 1)."""


def draw(seed: int, position: int) -> Draw:
    """The number for the token at `position` of an answer, of a request with this `seed`; both of 64 bits."""
    digest = hashlib.blake2b(struct.pack("<Qq", seed % (1 << 64), position), digest_size=8).digest()
    return Draw((int.from_bytes(digest, "big") >> (64 - BITS)) / (1 << BITS))


def tokens_by_draws(probabilities: torch.Tensor, draws: Mapping[int, Draw]) -> torch.Tensor:
    """The token of each row: the first up to which its probabilities add up to more than its share of their sum.

    Args:
        probabilities: float32 of [rows, vocabulary]; what is masked is 0.
        draws: by row; a row without one is drawn by the device's generator.

    Returns:
        int64 of [rows].
    """
    rows, vocabulary = probabilities.shape
    if len(draws) == rows:
        shares = torch.tensor([[draws[row]] for row in range(rows)], dtype=torch.float32).to(probabilities.device)
    else:
        shares = torch.rand(rows, 1, device=probabilities.device)
        given = torch.tensor([[draws.get(row, -1.0)] for row in range(rows)], dtype=torch.float32).to(shares.device)
        shares = torch.where(given < 0, shares, given)
    sums = probabilities.cumsum(dim=-1)
    # A device may add up in blocks, so that sums are not quite ascending: a token of no probability is never taken.
    beyond = (sums > shares * sums.amax(dim=-1, keepdim=True)) & (probabilities > 0)
    places = torch.arange(vocabulary, dtype=torch.int32, device=probabilities.device)
    first = torch.where(beyond, places, vocabulary).amin(dim=-1)
    return torch.where(first == vocabulary, probabilities.argmax(dim=-1), first.long())
