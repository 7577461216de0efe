# SPDX-License-Identifier: Apache-2.0
"""Runs in a process of its own on one npu: each check proves that one patch does its work.

python npu_checks.py OUT.json writes {check: null, or what went wrong}. Checks do not depend on each other, so that a
removed patch fails its own check and as few others as possible.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

CHECKS: list[Callable[[], None]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS.append(function)
    return function


def config(**changes: Any) -> Any:
    from megatron.core.transformer.transformer_config import TransformerConfig

    settings: dict[str, Any] = {
        "num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "add_bias_linear": False, "bf16": True,
        "params_dtype": torch.bfloat16, "pipeline_dtype": torch.bfloat16, "attention_dropout": 0.0,
    }  # fmt: skip
    return TransformerConfig(**{**settings, **changes})


@check
def stand_ins_are_the_extension() -> None:
    from megatron.core.extensions.transformer_engine import TEGroupedLinear, TENorm
    from megatron.core.models.gpt import gpt_layer_specs, moe_module_specs

    assert TENorm.__module__.startswith("megatron_patches.core.extensions.standin"), TENorm.__module__
    assert gpt_layer_specs.HAVE_TE and moe_module_specs.HAVE_TE
    assert issubclass(moe_module_specs.TEColumnParallelGroupedLinear, TEGroupedLinear)


@check
def version_is_the_stand_ins() -> None:
    from megatron.core.models.gpt import moe_module_specs
    from megatron.core.utils import get_te_version, is_te_min_version

    assert str(get_te_version()) == str(moe_module_specs.get_te_version()) == "1.13.0"
    assert is_te_min_version("1.10.0") and not is_te_min_version("2.0")


@check
def nothing_in_fp8_is_no_error() -> None:
    from megatron.core.fp8_utils import quantize_param_shard

    quantize_param_shard([], [], [], None)
    try:
        quantize_param_shard([object()], [None], [0], None)
    except RuntimeError as error:
        assert "Transformer Engine" in str(error), error
    else:
        raise AssertionError("an FP8 parameter was accepted")


@check
def fused_functions_run_eagerly() -> None:
    from megatron.core.fusions import fused_bias_swiglu
    from megatron.core.jit import jit_fuser

    def function() -> None: ...

    assert jit_fuser(function) is function
    assert fused_bias_swiglu.swiglu.__code__.co_name == "swiglu"


@check
def cuda_means_npu_after_the_groups_are_made() -> None:
    from verl.utils.device import get_device_name

    assert get_device_name() == "npu"
    assert torch.zeros(1, device="cuda").device.type == "npu"
    assert torch.zeros(1).cuda().device.type == "npu"


@check
def random_state_is_set() -> None:
    from megatron.core.tensor_parallel.random import _set_cuda_rng_state

    torch.npu.manual_seed(3)
    state = torch.npu.get_rng_state()
    first = torch.rand(4, device="npu").cpu()
    _set_cuda_rng_state(state)
    assert torch.equal(torch.rand(4, device="npu").cpu(), first)


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


@check
def rotary_embedding_does_not_loop_over_sequences() -> None:
    from megatron.core.models.common.embeddings.rope_utils import (
        _apply_rotary_pos_emb_bshd,
        _apply_rotary_pos_emb_thd,
    )

    generator = torch.Generator().manual_seed(0)
    freqs = torch.randn(12, 1, 1, 8, generator=generator).npu()
    calls = []
    for lengths in ([3, 12], [3, 12, 1, 7, 5, 9, 2, 2]):
        rows = torch.randn(sum(lengths), 2, 8, generator=generator).npu()
        bounds = torch.tensor([0, *lengths]).cumsum(0).int().npu()
        with _Count() as count:
            rotated = _apply_rotary_pos_emb_thd(rows, bounds, freqs, multi_latent_attention=True, mscale=1.25)
        calls.append(count.calls)
        one_by_one = [
            _apply_rotary_pos_emb_bshd(
                part.unsqueeze(1), freqs[: len(part)], multi_latent_attention=True, mscale=1.25
            ).squeeze(1)
            for part in rows.split(lengths)
        ]
        assert torch.equal(rotated, torch.cat(one_by_one))
    assert calls[0] == calls[1], calls


@check
def expert_bias_stays_float32() -> None:
    from megatron.core.transformer.module import Float16Module
    from megatron.core.transformer.moe.router import TopKRouter

    settings = config(num_moe_experts=4, moe_router_enable_expert_bias=True, moe_router_score_function="sigmoid")
    router = TopKRouter(settings)
    module = Float16Module(settings, router)
    assert router.weight.dtype == torch.bfloat16
    assert router.expert_bias.dtype == torch.float32
    assert module.sharded_state_dict()["expert_bias"].dtype == torch.float32


def _optimizer(bias: bool = False) -> tuple[Any, Any]:
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
    from megatron.core.tensor_parallel import ColumnParallelLinear
    from megatron.core.transformer.module import Float16Module

    settings = config()
    layer = ColumnParallelLinear(16, 8, config=settings, init_method=torch.nn.init.ones_, bias=bias)
    ddp = DistributedDataParallelConfig(use_distributed_optimizer=True, grad_reduce_in_fp32=True)
    model = DistributedDataParallel(settings, ddp, Float16Module(settings, layer))
    options = OptimizerConfig(
        lr=0.5, clip_grad=1.0, bf16=True, params_dtype=torch.bfloat16, use_distributed_optimizer=True
    )
    return model, get_megatron_optimizer(options, [model])


@check
def distributed_optimizer_takes_npu_parameters() -> None:
    model, optimizer = _optimizer()
    (shard,) = optimizer.chained_optimizers[0].shard_fp32_from_float16_groups[0]
    assert shard.dtype == torch.float32 and shard.device.type == "npu", (shard.dtype, shard.device)
    assert shard.numel() == sum(p.numel() for p in model.parameters())
    assert torch.Tensor.type(shard) == "torch.npu.FloatTensor", "the mapping of the names must not outlive the patch"


@check
def clipping_takes_npu_gradients() -> None:
    from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32

    parameter = torch.nn.Parameter(torch.zeros(4, device="npu"))
    parameter.grad = torch.full((4,), 3.0, device="npu")
    clip_grad_by_total_norm_fp32([parameter], max_norm=1.5, total_norm=6.0)
    torch.testing.assert_close(parameter.grad.cpu(), torch.full((4,), 0.75), rtol=1e-5, atol=0)


@check
def groups_of_parameters_are_loaded_by_what_they_are() -> None:
    _, chained = _optimizer(bias=True)
    (one,) = chained.chained_optimizers
    before = [(group["wd_mult"], [p.numel() for p in group["params"]]) for group in one.param_groups]
    assert [multiplier for multiplier, _ in before] == [1.0, 0.0]
    state = one.state_dict()
    state["optimizer"]["param_groups"].reverse()  # as a stage saves them that begins with a norm
    one.load_state_dict(state)
    assert [(group["wd_mult"], [p.numel() for p in group["params"]]) for group in one.param_groups] == before


@check
def states_have_the_same_names_with_one_optimizer_as_with_two() -> None:
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.mapping import ShardedTensor

    model, chained = _optimizer()
    state = chained.sharded_state_dict({"model": model.module.module.sharded_state_dict()})
    assert set(state) == {0}, state.keys()
    names = {value.key for value in nested_values(state) if isinstance(value, ShardedTensor)}
    assert names == {f"optimizer.state.{name}.weight" for name in ("fp32_param", "exp_avg", "exp_avg_sq")}, names


@check
def a_rank_loads_what_the_first_one_has_for_another_optimizer() -> None:
    _, chained = _optimizer()
    loaded: list[Any] = []
    chained.chained_optimizers[0].load_state_dict = loaded.append
    chained.load_state_dict({0: {"param_state": "ours"}, 1: {"optimizer": "steps", "param_state": "of experts"}})
    assert loaded == [{"optimizer": "steps", "param_state": "ours"}], loaded


@check
def checkpoints_can_be_saved() -> None:
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing import ShardedTensor

    value = torch.arange(12.0, device="npu").view(3, 4)
    with tempfile.TemporaryDirectory() as directory:
        dist_checkpointing.save({"w": ShardedTensor.from_rank_offsets("w", value)}, directory)
        target = {"w": ShardedTensor.from_rank_offsets("w", torch.zeros_like(value))}
        loaded = dist_checkpointing.load(target, directory)
    assert torch.equal(loaded["w"].cpu(), value.cpu())


def main() -> None:
    importlib.import_module("verl_patches.prelude_patch")
    importlib.import_module("torch_npu")
    torch.npu.set_device(0)
    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    with tempfile.TemporaryDirectory() as directory:
        torch.distributed.init_process_group("hccl", init_method=f"file://{directory}/store", rank=0, world_size=1)
        from megatron.core import parallel_state, tensor_parallel

        parallel_state.initialize_model_parallel()
        tensor_parallel.model_parallel_cuda_manual_seed(1)
        results: dict[str, str | None] = {}
        for function in CHECKS:
            try:
                function()
                results[function.__name__] = None
            except Exception:
                results[function.__name__] = traceback.format_exc()
        torch.distributed.destroy_process_group()
    Path(sys.argv[1]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
