# SPDX-License-Identifier: Apache-2.0
"""The strict level of this process, and the checks that it switches on."""

import os
import warnings

from torch_npu import _sim
from torch_npu.limits.fact import Arguments, CallLimit, CollectiveTypes, Fact, Level, Refused

VARIABLE = "NPU_SIM_STRICT"

_level = Level.OFF
_calls: dict[str, list[CallLimit]] = {}
_warned: set[Fact] = set()


def level() -> Level:
    """The level of this process."""
    return _level


def level_of_environment() -> Level:
    """What ``NPU_SIM_STRICT`` says; ValueError, with the values there are, when it says anything else."""
    text = os.environ.get(VARIABLE, Level.OFF.value)
    try:
        return Level(text)
    except ValueError:
        values = ", ".join(one.value for one in Level)
        raise ValueError(
            f"{VARIABLE} is {text!r}, expected one of {values}; correct the environment variable"
        ) from None


def set_level(new: Level) -> None:
    """Change the level of this process."""
    global _level
    _level = new
    _warned.clear()
    _calls.clear()
    _sim.clear_refusals()
    if new is Level.OFF:
        return
    # Only now: a process that is not strict needs no facts.
    from torch_npu.limits import table

    for limit in table.types():
        if isinstance(limit, CollectiveTypes):
            collective = limit.operator.removeprefix("hccl ")
            _sim.refuse_collective(collective, [*limit.refused], [*limit.reductions], limit.rule(), limit.only_warns)
        else:
            _sim.refuse_dtypes(limit.operator, [*limit.refused], limit.rule(), limit.only_warns)

    for operator, limits in table.calls().items():
        held = [limit for limit in limits if not (new is Level.FLOAT32 and limit.half_types_only)]
        if held:
            _calls[operator] = held


def check(operator: str, arguments: Arguments) -> None:
    """Raise Refused for a call outside a documented limit of the level in force; warn, once, for an expected one."""
    for limit in _calls.get(operator, ()):
        found = limit.outside(arguments)
        if found is None:
            continue
        if not limit.only_warns:
            raise Refused(limit.message(found))
        if limit not in _warned:
            _warned.add(limit)
            warnings.warn(limit.message(found), stacklevel=4)


def limited(operator: str) -> bool:
    """Whether calls of this operator are to be checked."""
    return operator in _calls
