# SPDX-License-Identifier: Apache-2.0
"""The plan against the byte counters of simulated dies, on which verl's own workers run steps of the tiny model.

Tokens are sent evenly to all experts, but for the layouts that say otherwise: there the plan is told what share each
die's experts were sent in the fullest layer of a phase, as `--expert-load` tells it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from recipe.runfile.schema import HOST, SWAPPED, Recompute

LAYOUTS: dict[str, dict[str, Any]] = {
    "ep2": {"dies": 2},
    "ep2, recomputed": {"dies": 2, "recompute": Recompute(granularity="full", method="uniform", layers=1)},
    "ep2, half recomputed": {"dies": 2, "recompute": Recompute(granularity="full", method="block", layers=2)},
    "dp4 ep2": {"dies": 4},
    "pp2 ep2, uneven; rollout tp2": {"dies": 4, "stages": (1, 3), "rollout_tensor": 2},
    "ep2, MindSpeed": {"dies": 2, "mindspeed": True},
    "ep2, MindSpeed, recomputed": {
        "dies": 2,
        "mindspeed": True,
        "recompute": Recompute(granularity="full", method="block", layers=4),
    },
    "ep2, MindSpeed, swapped": {"dies": 2, "mindspeed": True, "optimizer": SWAPPED},
    "tp2 ep2; rollout tp2": {"dies": 2, "tensor": 2, "rollout_tensor": 2},
    "ep2, optimizer on the host": {"dies": 2, "optimizer": HOST},
    # Three of a token's four experts on the first die.
    "ep2, tokens 3 : 1": {"dies": 2, "load_of_first": 1.5},
    # About as wide beside the hidden size as in the real model: what is fullest in a pass is something else.
    "ep2, narrow experts, tokens 3 : 1": {"dies": 2, "expert_width": 32, "load_of_first": 1.5},
    "ep2, as the router chooses": {"dies": 2, "load_of_first": None},
}
FAST = ("ep2", "ep2, narrow experts, tokens 3 : 1", "tp2 ep2; rollout tp2")
TOLERANCE = 0.03


def marks(name: str) -> list[pytest.MarkDecorator]:
    slow = [] if name in FAST else [pytest.mark.slow]
    return [*slow, pytest.mark.mindspeed] if "MindSpeed" in name else slow


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in LAYOUTS])
def test_planned_bytes_are_within_3_percent_of_the_counted(
    name: str,
    plan_and_count: Callable[..., dict[str, tuple[int, int]]],
    table: dict[str, dict[str, tuple[int, int]]],
) -> None:
    pairs = table[name] = plan_and_count(**LAYOUTS[name])
    lines = [f"{kind:36} {a:>12,} {b:>12,} {b / a - 1:+7.2%}" for kind, (a, b) in pairs.items()]
    print(name, *lines, sep="\n")
    wrong = [kind for kind, (counted, planned) in pairs.items() if abs(planned / counted - 1) > TOLERANCE]
    assert not wrong, "\n".join(lines)
