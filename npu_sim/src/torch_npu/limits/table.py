# SPDX-License-Identifier: Apache-2.0
"""All limits: the one table from which the checks and docs/STRICTNESS.md are made."""

from torch_npu.limits import (
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
from torch_npu.limits.fact import CallLimit, CollectiveLimit, DtypeLimit, Fact

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
)


def calls() -> dict[str, list[CallLimit]]:
    """Limits of fused operators by the operator's name."""
    found: dict[str, list[CallLimit]] = {}
    for fact in TABLE:
        if isinstance(fact, CallLimit):
            found.setdefault(fact.operator, []).append(fact)
    return found


def dtypes() -> list[DtypeLimit]:
    """Limits of torch's own operators."""
    return [fact for fact in TABLE if isinstance(fact, DtypeLimit)]


def collectives() -> list[CollectiveLimit]:
    """Limits of HCCL."""
    return [fact for fact in TABLE if isinstance(fact, CollectiveLimit)]
