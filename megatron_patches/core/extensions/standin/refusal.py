# SPDX-License-Identifier: Apache-2.0
"""Clear refusals: what the plain-torch stand-ins do not do, said where it is asked for."""

# NPU-ADAPTATION: what the stand-ins cannot do stops, and says so

from __future__ import annotations

from typing import Any, NoReturn


class StandInRefusal(RuntimeError):
    """A feature of Transformer Engine was asked for that the plain-torch stand-ins do not have."""


def refuse(name: str, problem: str, what_to_do: str) -> NoReturn:
    """Raise StandInRefusal naming the module, what it was given and what to do about it."""
    raise StandInRefusal(f"{name} (plain-torch stand-in for Transformer Engine): {problem}; {what_to_do}")


def refuse_fp8(name: str, config: Any) -> None:
    """Refuse a configuration that asks for FP8 compute or FP8 parameters."""
    for field in ("fp8", "fp8_param"):
        if getattr(config, field, None):
            refuse(name, f"{field}={getattr(config, field)!r} asks for FP8", "unset it or install Transformer Engine")


def refuse_comm_overlap(name: str, config: Any) -> None:
    """Refuse the overlap of tensor-parallel communication with GEMMs, which lives inside Transformer Engine."""
    if getattr(config, "tp_comm_overlap", False):
        refuse(name, "tp_comm_overlap=True needs its user buffers", "set tp_comm_overlap=False")


def refused(name: str, feature: str) -> type:
    """A class of the given name whose construction (or call) raises StandInRefusal."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        refuse(name, f"{feature} was asked for, which is not stood in for", "turn it off or install Transformer Engine")

    return type(name, (), {"__init__": __init__, "__doc__": f"Refuses: {feature} needs Transformer Engine."})
