# SPDX-License-Identifier: Apache-2.0
"""Sampling filters."""

import torch
from torch import Tensor

from . import checks
from .registry import op


@op()
def npu_top_k_top_p(logits: Tensor, p: Tensor, k: Tensor) -> Tensor:
    """Logits outside the k largest, or outside the smallest set with probability p, become -inf.

    Args:
        logits: [B, V].   p: [B] like logits, in [0, 1].   k: int32 [B], 1..V.

    The k-th largest value stays together with all its equals; the most probable token always stays.
    """
    name = "npu_top_k_top_p"
    checks.dtype(name, "logits", logits, checks.FLOATS)
    checks.rank(name, "logits", logits, 2)
    checks.same_dtype(name, logits=logits, p=p)
    checks.dtype(name, "k", k, checks.INT32)
    batch, vocabulary = logits.shape
    checks.shape(name, "p", p, (batch,))
    checks.shape(name, "k", k, (batch,))
    if batch and (int(k.min()) < 1 or int(k.max()) > vocabulary):
        raise checks.invalid(
            name, "k", f"between {int(k.min())} and {int(k.max())}", f"1..{vocabulary} (the vocabulary)"
        )
    ordered, place = logits.float().sort(-1)
    least = ordered.gather(1, (vocabulary - k.long()).unsqueeze(1))
    ordered = ordered.masked_fill(ordered < least, float("-inf"))
    tail = ordered.softmax(-1).cumsum(-1)
    outside = tail <= 1 - p.float().unsqueeze(1)
    outside[:, -1] = False
    ordered = ordered.masked_fill(outside, float("-inf"))
    return torch.empty_like(ordered).scatter_(1, place, ordered).to(logits.dtype)
