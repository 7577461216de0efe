# SPDX-License-Identifier: Apache-2.0
"""MindSpeed's own operators, which it compiles against CANN at first use.

MindSpeed's builders call ``torch.utils.cpp_extension.load`` on sources below ``mindspeed/ops/csrc``. On a machine
without CANN those cannot be built; :func:`install` answers such calls with the emulations below and passes every other
call on. Gradients are MindSpeed's own business (its autograd functions call ``npu_gmm_backward``), except for rope and
permutation.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from . import checks
from .after_import import after_import
from .grouped_matmul import group_bounds, multiply_groups, weight_gradient
from .moe_routing import npu_moe_token_permute, npu_moe_token_unpermute
from .registry import op
from .rotary import npu_rotary_position_embedding

SOURCES = "mindspeed/ops/csrc/"

GroupList: TypeAlias = Tensor | Sequence[int]


def _check_groups(name: str, group_list: GroupList | None) -> GroupList:
    if group_list is None:
        raise checks.unsupported(name, "group_list", None, "a list of ints or an int64 tensor")
    if isinstance(group_list, Tensor):
        checks.dtype(name, "group_list", group_list, checks.INT64)
    return group_list


@op("mindspeed.npu_gmm")
def npu_gmm(
    x: Sequence[Tensor],
    weight: Sequence[Tensor],
    bias: Sequence[Tensor],
    group_list: GroupList | None,
    group_type: int,
    group_list_type: int,
) -> list[Tensor]:
    """Grouped product. ``group_type`` 0: x [M, K], weight [G, K, N] → [M, N]; 2: x [K, M], weight [M, N] → [G, K, N].

    group_list: cumulative ends (``group_list_type`` 0) or counts (1), a host list or an int64 tensor.
    """
    name = "npu_gmm"
    groups = _check_groups(name, group_list)
    checks.only(name, (0, 2), group_type=group_type)
    checks.only(name, (0, 1), group_list_type=group_list_type)
    if bias:
        raise checks.unsupported(name, "bias", bias[0], "no bias")
    rows, factor = x[0], weight[0]
    checks.dtype(name, "x", rows, checks.FLOATS)
    checks.same_dtype(name, x=rows, weight=factor)
    if group_type == 0:
        checks.shape(name, "weight", factor, (-1, rows.shape[1], -1))
        return [
            multiply_groups(rows, factor, group_bounds(name, groups, group_list_type, factor.shape[0], rows.shape[0]))
        ]
    checks.shape(name, "weight", factor, (rows.shape[1], -1))
    bounds = group_bounds(name, groups, group_list_type, len(groups), factor.shape[0])
    return [weight_gradient(rows.t(), factor, bounds)]


@op("mindspeed.npu_gmm_backward")
def npu_gmm_backward(
    grad: Sequence[Tensor],
    x: Sequence[Tensor],
    weight: Sequence[Tensor],
    group_list: GroupList | None,
    group_list_type: int,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Gradients of the grouped product: ([dx [M, K]], [dweight [G, K, N]], no bias gradient)."""
    name = "npu_gmm_backward"
    bounds = group_bounds(name, _check_groups(name, group_list), group_list_type, weight[0].shape[0], x[0].shape[0])
    dx = multiply_groups(grad[0], weight[0].transpose(1, 2), bounds)
    return [dx], [weight_gradient(x[0], grad[0], bounds)], []


@op("mindspeed.npu_gmm_backward_fusion")
def npu_gmm_backward_fusion(
    grad: Sequence[Tensor], weight: Sequence[Tensor], group_list: GroupList | None, group_list_type: int
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Only dx; the weight's gradient is accumulated by npu_groupmatmul_add_fp32."""
    name = "npu_gmm_backward_fusion"
    bounds = group_bounds(name, _check_groups(name, group_list), group_list_type, weight[0].shape[0], grad[0].shape[0])
    return [multiply_groups(grad[0], weight[0].transpose(1, 2), bounds)], [], []


@op("mindspeed.npu_matmul_add_fp32")
def npu_matmul_add_fp32(x: Tensor, weight: Tensor, C: Tensor) -> None:
    """C += xᵀ · weight in float32, in place: x [..., M], weight [..., N] (rows flattened), C float32 [M, N]."""
    name = "npu_matmul_add_fp32"
    checks.dtype(name, "x", x, checks.FLOATS)
    checks.same_dtype(name, x=x, weight=weight)
    checks.dtype(name, "C", C, (torch.float32,))
    checks.shape(name, "C", C, (x.shape[-1], weight.shape[-1]))
    C.addmm_(x.reshape(-1, x.shape[-1]).float().t(), weight.reshape(-1, weight.shape[-1]).float())


@op("mindspeed.npu_groupmatmul_add_fp32")
def npu_groupmatmul_add_fp32(x: Tensor, weight: Tensor, group_list: Tensor, grad: Tensor) -> None:
    """grad[g] += xᵀ · weight over the rows of group g, in float32, in place.

    x [M, K], weight [M, N], group_list int64 cumulative ends on the device, grad float32 of G·K·N elements.
    """
    name = "npu_groupmatmul_add_fp32"
    checks.dtype(name, "x", x, checks.FLOATS)
    checks.same_dtype(name, x=x, weight=weight)
    checks.dtype(name, "grad", grad, (torch.float32,))
    checks.dtype(name, "group_list", group_list, checks.INT64)
    groups = group_list.numel()
    checks.true(
        name,
        "grad",
        grad.numel() == groups * x.shape[1] * weight.shape[1],
        f"of shape {tuple(grad.shape)}",
        f"[{groups}, {x.shape[1]}, {weight.shape[1]}]",
    )
    bounds = group_bounds(name, group_list, 0, groups, x.shape[0])
    grad.view(groups, x.shape[1], weight.shape[1]).add_(weight_gradient(x.float(), weight.float(), bounds))


# Without amsgrad MindSpeed gives an empty host tensor for what is not read.
@op("mindspeed.npu_apply_fused_adamw_v2", host=("max_exp_avg_sq",))
def npu_apply_fused_adamw_v2(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    max_exp_avg_sq: Tensor | None,
    step: Tensor,
    lr: float,
    beta1: float,
    beta2: float,
    weight_decay: float,
    eps: float,
    amsgrad: bool,
    maximize: bool,
) -> None:
    """One AdamW step (decoupled weight decay) on float32 ``param``, ``exp_avg`` and ``exp_avg_sq``, in place.

    step: one-element int64 tensor, the number of this step from 1. max_exp_avg_sq is not read.
    """
    name = "npu_apply_fused_adamw_v2"
    for label, tensor in (("param", param), ("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)):
        checks.dtype(name, label, tensor, (torch.float32,))
        checks.shape(name, label, tensor, tuple(param.shape))
    checks.dtype(name, "step", step, checks.INT64)
    checks.only(name, (False,), amsgrad=amsgrad, maximize=maximize)
    # PyTorch's own, as MindSpeed's AdamW that does not swap.
    torch._fused_adamw_(
        [param], [grad.float()], [exp_avg], [exp_avg_sq], [], [step.float().reshape(())],
        lr=lr, beta1=beta1, beta2=beta2, weight_decay=weight_decay, eps=eps, amsgrad=False, maximize=False,
    )  # fmt: skip


# MindSpeed's are built of the same kernels as torch_npu's, but take bfloat16 only.
_permute = op("mindspeed.npu_moe_token_permute", trained=True)(inspect.unwrap(npu_moe_token_permute))
_unpermute = op("mindspeed.npu_moe_token_unpermute", trained=True)(inspect.unwrap(npu_moe_token_unpermute))


def _gmm_module() -> SimpleNamespace:
    return SimpleNamespace(
        npu_gmm=npu_gmm, npu_gmm_backward=npu_gmm_backward, npu_gmm_backward_fusion=npu_gmm_backward_fusion
    )


MODULES: dict[str, Callable[[], SimpleNamespace]] = {
    "grouped_matmul": _gmm_module,
    "grouped_matmul_v2": _gmm_module,
    "npu_matmul_add_fp32": lambda: SimpleNamespace(npu_matmul_add_fp32=npu_matmul_add_fp32),
    "npu_groupmatmul_add_fp32": lambda: SimpleNamespace(npu_groupmatmul_add_fp32=npu_groupmatmul_add_fp32),
    "npu_apply_fused_adamw_v2": lambda: SimpleNamespace(npu_apply_fused_adamw_v2=npu_apply_fused_adamw_v2),
    "npu_rotary_position_embedding": lambda: SimpleNamespace(
        npu_rotary_position_embedding=npu_rotary_position_embedding
    ),
    "npu_moe_token_permute": lambda: SimpleNamespace(npu_moe_token_permute=_permute),
    "npu_moe_token_unpermute": lambda: SimpleNamespace(npu_moe_token_unpermute=_unpermute),
}
"""Extension name (MindSpeed's OP_NAME) → what its compiled module offers."""


def install() -> None:
    """Put the interception in front of ``torch.utils.cpp_extension.load``, once somebody imports that module.

    It brings setuptools, which takes a second and refuses where pip has been imported before.
    """
    after_import("torch.utils.cpp_extension", _intercept)


def _intercept(cpp_extension: Any) -> None:
    real = cpp_extension.load
    if getattr(real, "npu_sim", False):
        return

    @functools.wraps(real)
    def load(name: str, sources: str | list[str], *args: Any, **kwargs: Any) -> Any:
        listed = [sources] if isinstance(sources, str) else list(sources)
        if not any(SOURCES in source.replace("\\", "/") for source in listed):
            return real(name, sources, *args, **kwargs)
        if name not in MODULES:
            raise NotImplementedError(
                f"simulated NPU: MindSpeed's operator {name!r} is not simulated; have {sorted(MODULES)}"
            )
        return MODULES[name]()

    load.npu_sim = True  # type: ignore[attr-defined]  # marks our wrapper
    cpp_extension.load = load
