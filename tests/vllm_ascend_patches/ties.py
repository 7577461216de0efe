# SPDX-License-Identifier: Apache-2.0
"""Experts of a router that bfloat16 cannot tell apart."""

from __future__ import annotations

from typing import Any

import torch


def require_told_apart(gate: Any) -> None:
    """The router, a linear layer of vLLM, computes in float32, and so finds the better of two that tie in bfloat16."""
    weight = torch.zeros(gate.weight.shape, dtype=torch.float32)
    weight[1:3, 0] = 1.0
    weight[2, 1] = 2.0**-10  # expert 2 leads expert 1 by less than bfloat16 can tell at 1
    gate.weight.weight_loader(gate.weight, weight)
    tokens = torch.ones(3, weight.shape[1], dtype=torch.bfloat16)
    in_bfloat16 = tokens @ weight.bfloat16().T
    assert in_bfloat16[0, 1] == in_bfloat16[0, 2]
    logits, _ = gate(tokens)
    assert logits.dtype == torch.float32
    assert logits.argmax(-1).tolist() == [2, 2, 2]
    torch.testing.assert_close(logits, tokens.float() @ weight.T)
