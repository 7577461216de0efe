# SPDX-License-Identifier: Apache-2.0
"""All limits: the one table from which the checks and docs/STRICTNESS.md are made."""

from torch_npu.limits import (
    attention,
    collectives,
    formats,
    grouped_matmul,
    kv_cache,
    moe_gating,
    moe_mc2,
    moe_routing,
    norms,
    rotary,
    torch_operators,
)
from torch_npu.limits.fact import CallLimit, Fact, TypeLimit

TABLE: tuple[Fact, ...] = (
    *norms.LIMITS,
    *rotary.LIMITS,
    *attention.LIMITS,
    *kv_cache.LIMITS,
    *moe_gating.LIMITS,
    *moe_routing.LIMITS,
    *moe_mc2.LIMITS,
    *grouped_matmul.LIMITS,
    *formats.LIMITS,
    *torch_operators.LIMITS,
    *collectives.LIMITS,
)


def calls() -> dict[str, list[CallLimit]]:
    """Limits of fused operators by the operator's name."""
    found: dict[str, list[CallLimit]] = {}
    for fact in TABLE:
        if isinstance(fact, CallLimit):
            found.setdefault(fact.operator, []).append(fact)
    return found


def types() -> list[TypeLimit]:
    """Limits of torch's own operators and of HCCL."""
    return [fact for fact in TABLE if isinstance(fact, TypeLimit)]
