# SPDX-License-Identifier: Apache-2.0
"""``torch_npu.atb``: operators of the Ascend transformer boost library."""

from typing import Any

from torch_npu import _startup


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module 'torch_npu.atb' has no attribute {name!r}")
    operators = _startup.load_operators().ATB
    if name not in operators:
        raise AttributeError(f"torch_npu.atb.{name} is not simulated; simulated: {', '.join(sorted(operators))}")
    return operators[name]
