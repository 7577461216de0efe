# SPDX-License-Identifier: Apache-2.0
"""All limits: the one table from which the checks and docs/STRICTNESS.md are made."""

from torch_npu.limits import collectives, rotary, torch_operators
from torch_npu.limits.fact import CallLimit, Fact, TypeLimit

TABLE: tuple[Fact, ...] = (*rotary.LIMITS, *torch_operators.LIMITS, *collectives.LIMITS)


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
