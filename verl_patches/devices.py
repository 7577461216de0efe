# SPDX-License-Identifier: Apache-2.0
"""Which devices this environment is for, asked without importing torch."""

from __future__ import annotations

import importlib.util


def with_npus() -> bool:
    """torch_npu is not installed: GPUs have verl's own rollout"""
    return importlib.util.find_spec("torch_npu") is not None
