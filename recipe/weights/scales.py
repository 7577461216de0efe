# SPDX-License-Identifier: Apache-2.0
"""The scales of FP8 blocks as float32, whatever they are published in.

DeepSeek-V3 has float32, Qwen3-FP8 bfloat16, later models powers of two in a byte (E8M0: 2**(byte - 127), 255 is NaN;
OCP Microscaling Formats 1.0, 5.4.1). All of them are float32 numbers, so nothing is rounded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: safetensors' names of the dtypes.
DTYPES = ("F32", "BF16", "F16", "F8_E8M0")
# 2**-127, the only one of E8M0 that is subnormal in float32.
_LEAST_BITS = 0x00400000


def to_float32(raw: bytes | bytearray, dtype: str) -> NDArray[np.float32]:
    """The numbers in `raw`, one axis; dtype is one of DTYPES."""
    if dtype == "F32":
        return np.frombuffer(raw, np.float32)
    if dtype == "BF16":
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype == "F16":
        return np.frombuffer(raw, np.float16).astype(np.float32)
    if dtype != "F8_E8M0":
        raise ValueError(f"{dtype} is no dtype of scales")
    exponents = np.frombuffer(raw, np.uint8).astype(np.uint32)
    values = np.where(exponents, exponents << 23, np.uint32(_LEAST_BITS)).view(np.float32)
    values[exponents == 255] = np.nan
    return values
