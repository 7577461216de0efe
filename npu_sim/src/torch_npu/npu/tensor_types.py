# SPDX-License-Identifier: Apache-2.0
"""``torch.npu.FloatTensor`` and its like: constructors that also answer isinstance."""

from typing import Any

import torch

_DTYPES = {
    "FloatTensor": torch.float32,
    "DoubleTensor": torch.float64,
    "HalfTensor": torch.float16,
    "BFloat16Tensor": torch.bfloat16,
    "ByteTensor": torch.uint8,
    "CharTensor": torch.int8,
    "ShortTensor": torch.int16,
    "IntTensor": torch.int32,
    "LongTensor": torch.int64,
    "BoolTensor": torch.bool,
}


class _TensorType(type):
    """A class whose instances are the npu tensors of one dtype."""

    dtype: torch.dtype

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, torch.Tensor) and instance.device.type == "npu" and instance.dtype == cls.dtype

    def __call__(cls, *args: Any) -> torch.Tensor:
        """Sizes as integers, or the values as one sequence."""
        if args and not all(isinstance(arg, int) for arg in args):
            return torch.tensor(*args, dtype=cls.dtype, device="npu")
        return torch.empty(*(args or (0,)), dtype=cls.dtype, device="npu")


TENSOR_TYPES = {name: _TensorType(name, (), {"dtype": dtype}) for name, dtype in _DTYPES.items()}
