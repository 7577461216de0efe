# SPDX-License-Identifier: Apache-2.0
"""The plan against the byte counters of simulated dies, on which verl's own workers run steps of the tiny model.

Tokens are sent evenly to all experts, but for the layouts that say otherwise: there the plan is told what share each
die's experts were sent in the fullest layer of a phase, as `--expert-load` tells it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.recipe.plan.layouts import LAYOUTS, marks

TOLERANCE = 0.03


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
