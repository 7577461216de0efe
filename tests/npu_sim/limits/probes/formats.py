# SPDX-License-Identifier: Apache-2.0
"""Probes of memory formats."""

import torch

from tests.npu_sim.limits.probes.tensors import Arguments, Inside, Outside, half

_CASTS = ("npu_format_cast", "npu_format_cast_")


def _forbidden() -> Arguments:
    torch.npu.config.allow_internal_format = False
    return {"acl_format": 29}


INSIDE: Inside = {operator: (lambda: {"self": half(32, 16), "acl_format": 29}) for operator in _CASTS}

OUTSIDE: Outside = {}
for _operator in _CASTS:
    OUTSIDE |= {
        (_operator, "self", "2 or more dimensions for FRACTAL_NZ: others stay ND"): lambda: {"self": half(32)},
        (
            _operator, "self", "a smaller type than float64 for a private format: it stays in its base format",
        ): lambda: {"self": half(32, 16).double()},
        (_operator, "self", "a smaller type than int64 for a private format"): lambda: {"self": half(32, 16).long()},
        (
            _operator, "acl_format",
            "private formats only with torch.npu.config.allow_internal_format: tensors stay in their base format",
        ): _forbidden,
    }  # fmt: skip
