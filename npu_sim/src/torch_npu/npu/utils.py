# SPDX-License-Identifier: Apache-2.0
"""``torch.npu.utils``: names kept for code that takes them from here."""

from torch_npu.npu.devices import (
    _lazy_call,
    current_device,
    device_count,
    get_device_name,
    get_soc_version,
    is_available,
    set_device,
    synchronize,
)
from torch_npu.npu.streams import current_stream, default_stream, set_stream, stream

__all__ = [
    "_lazy_call",
    "current_device",
    "current_stream",
    "default_stream",
    "device_count",
    "get_device_name",
    "get_soc_version",
    "is_available",
    "set_device",
    "set_stream",
    "stream",
    "synchronize",
]
