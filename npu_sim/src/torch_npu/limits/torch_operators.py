# SPDX-License-Identifier: Apache-2.0
"""Dtypes that torch's own operators do not take on an NPU.

The documents list the dtypes that each function of torch takes. Taken over are matrix products and convolutions, which
take nothing else than what is listed, and, for reductions, orderings, norms, activations and losses, the wide types
(float64 and complex numbers) that are not. Left out are functions that may run on the host by the same documents, those
that are listed under two names with different types, and those that torch makes of others before the device sees them.
"""

from collections.abc import Iterable, Iterator

import torch
from torch_npu.limits import sources
from torch_npu.limits.fact import OperatorTypes, Source

_DTYPES = frozenset(value for value in vars(torch).values() if isinstance(value, torch.dtype))
_COMPLEX = frozenset({torch.complex64, torch.complex128})


def _only(names: str, taken: Iterable[str], source: Source) -> Iterator[OperatorTypes]:
    refused = _DTYPES - {getattr(torch, name) for name in taken}
    for name in names.split():
        yield OperatorTypes(f"aten::{name}", "every tensor", " or ".join(taken), source, refused)


def _not_wide(names: str, source: Source) -> Iterator[OperatorTypes]:
    for name in names.split():
        yield OperatorTypes(
            f"aten::{name}", "every tensor", "neither float64 nor complex numbers", source, _COMPLEX | {torch.float64}
        )


def _not_complex(names: str, source: Source) -> Iterator[OperatorTypes]:
    for name in names.split():
        yield OperatorTypes(f"aten::{name}", "every tensor", "no complex numbers", source, _COMPLEX)


LIMITS = (
    *_only("mm bmm addmm baddbmm", ("bfloat16", "float16", "float32"), sources.TORCH_FUNCTIONS),
    *_only("addbmm vdot", ("float16", "float32"), sources.TORCH_FUNCTIONS),
    *_only("convolution convolution_backward", ("bfloat16", "float16", "float32"), sources.NN_FUNCTIONS),
    *_not_wide(
        "amax amin aminmax max min logsumexp median var sort kthvalue tanh addcdiv lerp", sources.TORCH_FUNCTIONS
    ),
    *_not_wide(
        "_log_softmax silu gelu relu native_batch_norm nll_loss_forward softplus mish smooth_l1_loss",
        sources.NN_FUNCTIONS,
    ),
    *_not_complex(
        "sum norm argmax argmin all any maximum minimum topk cumprod searchsorted _softmax", sources.TORCH_FUNCTIONS
    ),
)
