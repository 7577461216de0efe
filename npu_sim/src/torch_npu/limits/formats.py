# SPDX-License-Identifier: Apache-2.0
"""Limits of memory formats: where torch_npu gives another format than the one that was asked for."""

from typing import Any

import torch
from torch_npu.limits import sources
from torch_npu.limits.conditions import dtype_text, shape_text
from torch_npu.limits.fact import Arguments, CallLimit
from torch_npu.limits.rows import limits_of
from torch_npu.npu.formats import BASE, Format
from torch_npu.npu.options import config


def _asked(arguments: Arguments) -> Any:
    return arguments["acl_format"]


def _flat(tensor: torch.Tensor, arguments: Arguments) -> str | None:
    return shape_text(tensor) if _asked(arguments) == Format.FRACTAL_NZ and tensor.dim() < 2 else None


def _wide(tensor: torch.Tensor, arguments: Arguments) -> str | None:
    return dtype_text(tensor.dtype) if _asked(arguments) in BASE and tensor.dtype == torch.float64 else None


def _integer(tensor: torch.Tensor, arguments: Arguments) -> str | None:
    return dtype_text(tensor.dtype) if _asked(arguments) in BASE and tensor.dtype == torch.int64 else None


def _allowed(acl_format: Any, _: Arguments) -> str | None:
    return None if config.allow_internal_format or acl_format not in BASE else str(int(acl_format))


def _cast(operator: str) -> tuple[CallLimit, ...]:
    row = limits_of(operator, sources.torch_npu("framework/InferFormat.cpp"))
    types = limits_of(operator, sources.torch_npu("framework/utils/OpPreparation.cpp"))
    switch = limits_of(operator, sources.torch_npu("aten/common/TensorFactories.cpp"))
    return (
        row("self", "2 or more dimensions for FRACTAL_NZ: others stay ND", _flat),
        types("self", "a smaller type than float64 for a private format: it stays in its base format", _wide),
        limits_of(operator, None)("self", "a smaller type than int64 for a private format", _integer),
        switch(
            "acl_format",
            "private formats only with torch.npu.config.allow_internal_format: tensors stay in their base format",
            _allowed,
        ),
    )


LIMITS = (*_cast("npu_format_cast"), *_cast("npu_format_cast_"))
