# SPDX-License-Identifier: Apache-2.0
"""python mindspeed_checks.py NAME: one check of this process under the real MindSpeed; it fails by an exception.

Nothing of ours and nothing of MindSpeed is imported before the check says so: the order is what is checked.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import torch

SCALE = "mindspeed_patches.core.transformer.flash_attention.flash_attention.adaptor:dot_product_attention_forward_impl"
CHECKS: dict[str, Callable[[], None]] = {}


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS[function.__name__] = function
    return function


def worker() -> Callable[[], None]:
    """Import verl's worker module, overlay and MindSpeed with it; returns `repatch` as a worker calls it."""
    importlib.import_module("verl_patches.prelude_patch")
    return repatch_of(importlib.import_module("verl.workers.megatron_workers"))


def repatch_of(module: Any) -> Callable[[], None]:
    assert module.repatch is not None, "MindSpeed was not found"
    return lambda: module.repatch(overrides())


def overrides() -> dict[str, Any]:
    from recipe.runfile.mindspeed import transformer_overrides

    return transformer_overrides()


def reaches(found: Any, wanted: Any) -> bool:
    """Whether calling `found` leads to `wanted`: it is it, or functions or descriptors around it."""
    seen: set[int] = set()

    def inside(thing: Any) -> Iterator[Any]:
        yield getattr(thing, "__func__", None)
        yield getattr(thing, "fget", None)
        yield getattr(thing, "__wrapped__", None)
        if inspect.isfunction(thing):
            for cell in thing.__closure__ or ():
                with suppress(ValueError):  # a cell that is still empty
                    yield cell.cell_contents

    def search(thing: Any) -> bool:
        if thing is wanted:
            return True
        if thing is None or id(thing) in seen:
            return False
        seen.add(id(thing))
        return any(search(part) for part in inside(thing))

    return search(found)


def live(target: Any) -> Any:
    """The object that stands at a patch's target now."""
    holder: Any = sys.modules[target.module]
    *scopes, name = target.qualname.split(".")
    for scope in scopes:
        holder = vars(holder)[scope]
    return vars(holder)[name][target.key] if target.has_key else vars(holder)[name]


def compiles() -> bool:
    """Whether torch.compile compiles: its backend gets a graph."""
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    assert torch.compile(lambda x: x + 1, backend=backend)(torch.ones(2)).tolist() == [2, 2]
    return bool(graphs)


@check
def torch_compile_is_real_for_the_rollout_only() -> None:
    assert compiles()
    repatch = worker()
    from verl_patches.compile_toggle import true_compile

    def both() -> None:
        script = torch.jit.script
        assert not compiles()
        with true_compile():
            assert compiles()
            assert not torch.jit.script.__module__.startswith("mindspeed"), torch.jit.script
        assert not compiles()
        assert torch.jit.script is script and script.__module__.startswith("mindspeed"), script
        with suppress(KeyError), true_compile():
            raise KeyError
        assert not compiles()

    both()  # MindSpeed is imported
    repatch()
    both()  # the actor is made
    repatch()
    both()  # the reference policy is made
    with true_compile():
        assert compiles()
        repatch()
        assert not compiles(), "what was put in place within the block stays"
        with true_compile():
            assert compiles()
    both()
    from megatron.core.jit import jit_fuser

    assert jit_fuser.__module__.startswith("mindspeed"), f"training would compile: {jit_fuser}"


@check
def our_patches_outlive_every_repatch() -> None:
    repatch = worker()
    from mindspeed.patch_utils import MindSpeedPatchesManager

    from recipe import overlay
    from recipe.overlay.declare import declared
    from recipe.overlay.hook import discover

    patched: set[str] = set()
    for time in range(3):
        if time:
            repatch()
        for mirror in discover():
            # What the rollout imports lies apart from what MindSpeed patches.
            if not mirror.upstream.startswith("vllm") and (time or not mirror.upstream.startswith("mindspeed")):
                importlib.import_module(mirror.upstream)
        state = {one["patch"]: one for one in overlay.status()}
        patched = set(MindSpeedPatchesManager.patches_info)
        for one in declared():
            if state[one.id]["status"] == "applied" and one.kind in ("wrap", "replace"):
                assert reaches(live(one.target), one.ours), f"{one.id} is gone after {time} repatches"
            if state[one.id]["status"] == "applied" and not one.target.has_key:
                place = f"{one.target.module}.{one.target.qualname}"
                assert place not in patched, f"{one.id}: MindSpeed puts its own function there at every repatch"
    applied = {name for name, one in state.items() if one["status"] == "applied"}
    for name in (
        "megatron_patches.core.transformer.module:float16_module_init",
        "verl_patches.protocol:concat",
        SCALE,
    ):
        assert name in applied, name
    from megatron.core.transformer.dot_product_attention import DotProductAttention

    ours = importlib.import_module("mindspeed_patches.core.transformer.flash_attention.flash_attention.adaptor")
    assert "megatron.core.transformer.dot_product_attention.DotProductAttention.forward" in patched
    assert reaches(DotProductAttention.forward, ours.dot_product_attention_forward_impl)


@check
def patches_for_machines_without_mindspeed_step_aside() -> None:
    repatch = worker()
    from recipe import overlay
    from recipe.audit.declarations import collect

    aside = {one.id: one for one in collect() if "MindSpeed" in one.otherwise}
    assert len(aside) >= 8, sorted(aside)
    for _ in range(2):
        repatch()
        for one in aside.values():
            importlib.import_module(one.target.module)
        state = {one["patch"]: one for one in overlay.status()}
        for name in aside:
            assert state[name]["status"] == "skipped", state[name]
            assert "MindSpeed" in state[name]["reason"], state[name]
        from megatron.core.extensions import transformer_engine
        from megatron.core.transformer.dot_product_attention import DotProductAttention

        assert transformer_engine.__name__ == "megatron.core.extensions.transformer_engine"
        assert transformer_engine.TEDotProductAttention is DotProductAttention
        assert transformer_engine.TEColumnParallelGroupedLinear.__module__.startswith("mindspeed")
        assert torch.zeros(1, device="npu").type() == "torch.cuda.FloatTensor"


def attention_scale(softmax_scale: float, head_size: int = 4) -> float:
    """What Megatron's attention layer multiplies the products of queries and keys by, found by one attention."""
    from megatron.core.transformer.dot_product_attention import DotProductAttention
    from megatron.core.transformer.enums import AttnMaskType

    layer = SimpleNamespace(
        config=SimpleNamespace(sparse_mode=0, pre_tockens=65536, next_tockens=65536),
        attn_mask_type=AttnMaskType.no_mask,
        scale_mask_softmax=SimpleNamespace(scale=None),
        softmax_scale=softmax_scale,
        hidden_size_per_attention_head=head_size,
        attention_dropout=SimpleNamespace(p=0.0),
    )
    query, key = torch.zeros(2, 1, 1, head_size).npu(), torch.zeros(2, 1, 1, head_size).npu()
    query[:, 0, 0, 0], key[1, 0, 0, 0] = 1.0, 2.0  # products 0 and 2
    value = torch.eye(2, head_size).view(2, 1, 1, head_size).npu()  # the output is the weights
    first, second = DotProductAttention.forward(layer, query, key, value, None, AttnMaskType.no_mask)[0, 0, :2].tolist()
    assert layer.scale_mask_softmax.scale is None, "what was lent has to be taken back"
    return math.log(second / first) / 2


@check
def the_softmax_scale_is_the_layers_after_every_repatch() -> None:
    repatch = worker()
    for _ in range(3):
        repatch()
        assert math.isclose(attention_scale(0.3), 0.3, rel_tol=1e-5)


@check
def an_overlay_that_comes_after_mindspeed_holds_from_the_next_repatch() -> None:
    importlib.import_module("torch_npu")
    repatch = repatch_of(importlib.import_module("mindspeed.megatron_adaptor"))
    repatch()
    assert math.isclose(attention_scale(0.3), 0.5, rel_tol=1e-5), "upstream is cured: the patch can go"
    importlib.import_module("verl_patches.prelude_patch")
    repatch()
    assert math.isclose(attention_scale(0.3), 0.3, rel_tol=1e-5)
    from recipe import overlay

    overlay.revert(SCALE)
    repatch()
    assert math.isclose(attention_scale(0.3), 0.5, rel_tol=1e-5)
    overlay.apply()
    repatch()
    assert math.isclose(attention_scale(0.3), 0.3, rel_tol=1e-5)


@check
def norms_are_fused_where_a_stage_has_none_but_those_before_projections() -> None:
    """As all stages of Llama but the last: nothing there makes MindSpeed fuse them by itself."""
    worker()
    import torch_npu
    from megatron.core.transformer.transformer_config import TransformerConfig
    from mindspeed.core.fusions.fused_rms_norm import RMSNorm

    from recipe.models.published import KNOWN
    from recipe.runfile.mindspeed import transformer_overrides

    module = importlib.import_module("verl.workers.megatron_workers")
    module.repatch(transformer_overrides(KNOWN["llama3_1_8b"]))
    config = TransformerConfig(num_layers=1, hidden_size=64, num_attention_heads=4, normalization="RMSNorm")
    fused, calls = torch_npu.npu_rms_norm, []
    torch_npu.npu_rms_norm = lambda *given, **more: calls.append(given) or fused(*given, **more)
    norm = RMSNorm(64, config=config).npu()
    assert norm(torch.full((2, 64), 3.0).npu()).cpu().allclose(torch.ones(2, 64))
    assert len(calls) == 1


@check
def the_published_runs_are_understood() -> None:
    """Their stages, their optimizer, and no setting of the transformer that nobody reads."""
    import dataclasses
    from pathlib import Path

    from omegaconf import OmegaConf

    worker()
    from mindspeed.args_utils import get_full_args

    known = {*vars(get_full_args()), "use_flash_attn"}  # read with a default where it is not registered
    from megatron.core import parallel_state
    from megatron.core.optimizer import distrib_optimizer
    from megatron.core.transformer import transformer_block, transformer_layer
    from megatron.core.transformer.transformer_config import MLATransformerConfig

    from recipe.runfile.config import load
    from recipe.runfile.derive import derive_run

    fields = {field.name for field in dataclasses.fields(MLATransformerConfig)}
    module = importlib.import_module("verl.workers.megatron_workers")
    files = sorted((Path(__file__).resolve().parents[2] / "configs").glob("a3_???die*.toml"))
    assert len(files) == 4
    for file in files:
        config = load(file)
        asked = derive_run(config).complete().transformer
        assert not set(asked) - fields - known, set(asked) - fields - known
        module.repatch(OmegaConf.create(asked))
        assert distrib_optimizer.DistributedOptimizer.__name__ == "SwapDistributedOptimizer"
        stages = config.actor.stage_layers
        settings = {name: value for name, value in asked.items() if name in fields}
        transformer = MLATransformerConfig(
            num_layers=61, hidden_size=7168, num_attention_heads=128, num_moe_experts=256, moe_router_topk=8,
            add_bias_linear=False, pipeline_model_parallel_size=len(stages), pipeline_dtype=torch.bfloat16, **settings,
        )  # fmt: skip
        parallel_state.set_pipeline_model_parallel_world_size(len(stages))
        built, offsets = [], []
        for rank in range(len(stages)):
            parallel_state.set_pipeline_model_parallel_rank(rank)
            built.append(transformer_block.get_num_layers_to_build(transformer))
            # Megatron-core's own: it must say the same as MindSpeed's list.
            offsets.append(transformer_layer.get_transformer_layer_offset(transformer))
        assert built == stages, built
        assert offsets == [sum(stages[:rank]) for rank in range(len(stages))], offsets


@check
def what_mindspeed_is_told_can_be_saved_with_a_checkpoint() -> None:
    """As verl writes it: the transformer's configuration as JSON."""
    from omegaconf import OmegaConf

    worker()
    module = importlib.import_module("verl.workers.megatron_workers")
    module.repatch(OmegaConf.create({**overrides(), "pipeline_num_transformer_layers": [[1], [3]]}))
    from megatron.core.transformer.transformer_config import MLATransformerConfig

    transformer = MLATransformerConfig(num_layers=4, hidden_size=8, num_attention_heads=2, pipeline_dtype=torch.float32)
    assert json.loads(json.dumps(transformer.pipeline_num_transformer_layers)) == [[1], [3]]


if __name__ == "__main__":
    CHECKS[sys.argv[1]]()
