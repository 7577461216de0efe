# SPDX-License-Identifier: Apache-2.0
"""For every row of the table of limits a call that breaks it, and for every operator one inside all of its limits."""

from tests.npu_sim.limits.probes import (
    attention,
    formats,
    grouped_matmul,
    kv_cache,
    moe_gating,
    moe_mc2,
    moe_routing,
    norms,
    rotary,
)
from tests.npu_sim.limits.probes.tensors import Inside, Outside

_FAMILIES = (norms, rotary, attention, kv_cache, moe_gating, moe_routing, moe_mc2, grouped_matmul, formats)

INSIDE: Inside = {operator: make for family in _FAMILIES for operator, make in family.INSIDE.items()}
OUTSIDE: Outside = {row: make for family in _FAMILIES for row, make in family.OUTSIDE.items()}
