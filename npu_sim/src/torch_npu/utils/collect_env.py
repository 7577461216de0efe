# SPDX-License-Identifier: Apache-2.0
"""What is installed."""

from torch_npu._version import CANN_VERSION


def get_cann_version(ascend_path: str | None = None) -> str:
    """The CANN release whose operator semantics are simulated."""
    return CANN_VERSION
