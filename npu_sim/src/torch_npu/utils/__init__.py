# SPDX-License-Identifier: Apache-2.0
"""``torch_npu.utils``."""

from torch_npu.utils import collect_env, flops_count


def register_asd_hook(*args: object, **kwargs: object) -> None:
    """On hardware: detection of silent data corruption. Host memory needs none."""


__all__ = ["collect_env", "flops_count", "register_asd_hook"]
