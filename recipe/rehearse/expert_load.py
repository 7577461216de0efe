# SPDX-License-Identifier: Apache-2.0
"""How many tokens a die's experts are sent, read where Megatron-core has handed them out."""

from __future__ import annotations

from typing import Any

from recipe.rehearse.counters import Counters


def read_loads(counters: Counters) -> dict[str, float]:
    """From now on, by phase, the most tokens that were sent to this die's experts as a multiple of an even share."""
    from megatron.core.transformer.moe.token_dispatcher import MoEAlltoAllTokenDispatcher

    loads: dict[str, float] = {}
    original = MoEAlltoAllTokenDispatcher.token_permutation

    def token_permutation(self: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, hidden_states, *args, **kwargs)
        even = hidden_states.numel() // hidden_states.shape[-1] * self.config.moe_router_topk * self.tp_size
        loads[counters.phase] = max(loads.get(counters.phase, 0.0), result[0].shape[0] / even)
        return result

    MoEAlltoAllTokenDispatcher.token_permutation = token_permutation
    return loads
