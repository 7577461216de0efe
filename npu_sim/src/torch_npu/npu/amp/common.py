# SPDX-License-Identifier: Apache-2.0
"""Whether mixed precision can be used."""

from torch_npu.npu.devices import is_available


def amp_definitely_not_available() -> bool:
    return not is_available()
