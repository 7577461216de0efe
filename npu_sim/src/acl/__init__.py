# SPDX-License-Identifier: Apache-2.0
"""The part of CANN's Python interface that MindSpeed reads. Anything else raises AttributeError by name."""

from . import rt

ACL_SUCCESS = 0


def get_soc_name() -> str:
    """Name of the simulated chip (Ascend A3)."""
    return "Ascend910_9382"


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(f"acl.{name} is not simulated")


__all__ = ["ACL_SUCCESS", "get_soc_name", "rt"]
