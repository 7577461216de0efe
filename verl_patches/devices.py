# SPDX-License-Identifier: Apache-2.0
"""Which devices this environment is for, asked without importing torch."""

# NPU-ADAPTATION: GPUs keep verl's own rollout

from __future__ import annotations

import importlib.util

from recipe.overlay import Condition


def _npus() -> bool:
    return importlib.util.find_spec("torch_npu") is not None


with_npus = Condition(_npus, otherwise="torch_npu is not installed: GPUs have verl's own rollout")
