# SPDX-License-Identifier: Apache-2.0
"""Builds verl's Megatron model on `npu` or `cpu`, loads our checkpoint, computes.

For tests/ranks.py; the job names the Hugging Face directory, the Megatron checkpoint, the device, the tasks, whether
MindSpeed takes part, and patches to take off first. Results are saved with torch.save to <out>.<rank>.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch


class _HostStream:
    """A stream of the host: everything has happened already."""

    def wait_stream(self, other: Any) -> None: ...

    def synchronize(self) -> None: ...


def become_cpu() -> None:
    """Make Megatron-core, which asks for the current CUDA device, work on the host; call before importing it."""
    sys.modules["torch_npu"] = None  # type: ignore[assignment]  # as if it were not installed
    torch.cuda.current_device = lambda: torch.device("cpu")  # type: ignore[assignment,return-value]
    torch.cpu.current_device = lambda: 0  # type: ignore[assignment]  # verl makes "cpu:<number>" of it
    torch.cuda.Stream = _HostStream  # type: ignore[assignment,misc]
    torch.cuda.current_stream = lambda *args: _HostStream()  # type: ignore[assignment,return-value]
    torch.cuda.stream = lambda stream: contextlib.nullcontext()  # type: ignore[assignment]
    torch.Tensor.record_stream = lambda self, stream: None  # type: ignore[method-assign,assignment]
    torch.Tensor.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign,assignment]


def adapt_with_mindspeed(reverted: list[str], more: dict[str, Any]) -> None:
    """Import MindSpeed where a worker does, take the patches of these ids off, and adapt Megatron-core twice.

    more: entries of `override_transformer_config` besides those that every model needs.
    """
    from recipe import overlay
    from recipe.runfile.mindspeed import transformer_overrides

    repatch = importlib.import_module("verl.workers.megatron_workers").repatch
    assert repatch is not None, "verl has not found MindSpeed"
    repatch(transformer_overrides() | more)
    if reverted:  # without a name it takes all of them off
        overlay.revert(*reverted)
    repatch(transformer_overrides() | more)


def start(
    device: str,
    mindspeed: bool = False,
    reverted: list[str] | None = None,
    transformer: dict[str, Any] | None = None,
) -> None:
    """Join the process group; afterwards verl and Megatron-core can be imported with the overlay live."""
    if device == "cpu":
        become_cpu()
    importlib.import_module("verl_patches.prelude_patch")
    if mindspeed:
        adapt_with_mindspeed(reverted or [], transformer or {})
    else:
        assert importlib.util.find_spec("mindspeed") is None, "this job is to run without MindSpeed"
    from verl.utils.device import get_device_name

    assert get_device_name() == device, f"verl sees {get_device_name()}, this job wants {device}"
    if device == "npu":
        import torch_npu  # noqa: F401

        torch.npu.set_device(int(os.environ["RANK"]))
    torch.distributed.init_process_group("hccl" if device == "npu" else "gloo")


def make_groups(layout: dict[str, Any], device: str) -> None:
    """(Re)make Megatron's process groups for a layout {tp, pp, ep, transformer: settings besides}."""
    from megatron.core import parallel_state, tensor_parallel
    from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler

    # Class state whose shape depends on who sets it first: every task starts with a fresh one, as a process does.
    MoEAuxLossAutoScaler.main_loss_backward_scale = None
    # The backend that one model chose, which the next one would have to choose too.
    for name in ("NVTE_FLASH_ATTN", "NVTE_FUSED_ATTN", "NVTE_UNFUSED_ATTN"):
        os.environ.pop(name, None)
    parallel_state.destroy_model_parallel()
    # Left behind by destroy_model_parallel; a stage of the next layout would take itself for the first.
    parallel_state._EMBEDDING_GLOBAL_RANKS = parallel_state._POSITION_EMBEDDING_GLOBAL_RANKS = None
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=layout.get("tp", 1),
        pipeline_model_parallel_size=layout.get("pp", 1),
        expert_model_parallel_size=layout.get("ep", 1),
        expert_tensor_parallel_size=1,
    )
    if device == "npu":
        tensor_parallel.model_parallel_cuda_manual_seed(1)


SPECS: dict[str, tuple[bool, dict[str, Any]]] = {
    # whether verl's choice of layers stays (else Megatron-core's own), and settings
    "verl": (True, {}),
    "local": (False, {"moe_grouped_gemm": False}),
    "local-grouped": (False, {"moe_use_legacy_grouped_gemm": True}),
}


class _NoAttention(torch.nn.Module):
    """In place of Megatron-core's own attention, which takes no multi-latent one's sizes and has no weights either."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()


class _PlainNorm(torch.nn.RMSNorm):
    """In place of Megatron-core's wrapper of the same, which refuses settings that matter in the forward pass only."""

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5) -> None:
        super().__init__(hidden_size, eps)


@contextlib.contextmanager
def layers_of(spec: str) -> Iterator[dict[str, Any]]:
    """While the block runs, verl builds models from the layers of `spec`; gives settings of the transformer config."""
    from megatron.core.models.gpt import gpt_layer_specs
    from megatron.core.transformer.moe import grouped_gemm_util
    from verl.models.mcore import model_initializer

    stays, settings = SPECS[spec]
    original = model_initializer.get_gpt_decoder_block_spec

    def own(config: Any, use_transformer_engine: bool, **options: Any) -> Any:
        if not stays:
            options["normalization"] = "RMSNorm"
        return original(config, use_transformer_engine=use_transformer_engine and stays, **options)

    model_initializer.get_gpt_decoder_block_spec = own
    gpt_layer_specs.DotProductAttention = _NoAttention
    gpt_layer_specs.LNImpl = gpt_layer_specs.WrappedTorchNorm = _PlainNorm
    # Only the forward pass would need the package.
    grouped_gemm_util.assert_grouped_gemm_is_available = lambda: None
    try:
        yield settings
    finally:
        model_initializer.get_gpt_decoder_block_spec = original


def build(
    job: dict[str, Any], layout: dict[str, Any], dtype: torch.dtype, ddp: bool, spec: str = "verl"
) -> tuple[list[Any], Any, Any]:
    """verl's modules for this rank, its transformer config and the Hugging Face config."""
    from transformers import AutoConfig
    from verl.models.mcore import hf_to_mcore_config
    from verl.utils.megatron_utils import McoreModuleWrapperConfig, make_megatron_module

    from recipe.models.families import describe
    from recipe.runfile.mindspeed import transformer_overrides as mindspeed_overrides

    hf_config = AutoConfig.from_pretrained(job["hf"])
    model = describe(json.loads((Path(job["hf"]) / "config.json").read_text()))
    overrides = dict(model.transformer_overrides) if job.get("derive", True) else {}
    overrides["moe_router_dtype"] = "fp32"  # as the launcher has it on NPUs
    if job["mindspeed"]:
        overrides |= mindspeed_overrides(model)
    if job["device"] == "cpu":
        overrides |= {"use_cpu_initialization": True, "moe_shared_expert_overlap": False}
    if "first" in layout and layout.get("pp", 1) > 1:
        overrides["num_layers_in_first_pipeline_stage"] = layout["first"]
    if layout.get("tp", 1) > 1:
        overrides["sequence_parallel"] = True
    overrides |= layout.get("transformer", {})
    wrap = McoreModuleWrapperConfig(
        wrap_with_ddp=ddp,
        use_distributed_optimizer=ddp,
        share_embeddings_and_output_weights=bool(hf_config.tie_word_embeddings),
    )
    with layers_of(spec) as settings:
        config = hf_to_mcore_config(hf_config, dtype, **(overrides | settings))
        return make_megatron_module(wrap, config, hf_config), config, hf_config


def load(modules: list[Any], checkpoint: str) -> None:
    """verl's own loader; every parameter is NaN before, so that one that was not loaded shows."""
    from verl.utils.model import load_mcore_dist_weights

    for module in modules:
        for parameter in module.parameters():
            parameter.data.fill_(math.nan)
    load_mcore_dist_weights(modules, checkpoint)


def batch(job: dict[str, Any], rows: slice, device: str) -> dict[str, torch.Tensor]:
    tokens = torch.tensor(job["tokens"])[rows]
    mask = torch.arange(tokens.shape[1])[None] < torch.tensor(job["lengths"])[rows, None]
    label = tokens.roll(-1, dims=1)
    label_mask = mask & mask.roll(-1, dims=1)
    label_mask[:, -1] = False
    position = torch.arange(tokens.shape[1]).expand_as(tokens)
    out = {"tokens": tokens, "mask": mask, "label": label, "label_mask": label_mask, "position": position}
    return {name: value.contiguous().to(device) for name, value in out.items()}


def forward(model: Any, hf_config: Any, data: dict[str, torch.Tensor]) -> Any:
    """verl's packed forward: log-probabilities of the next token and the argmax, [rows, length]; 0 outside."""
    from verl.models.mcore import get_mcore_forward_fn
    from verl.utils.megatron.tensor_parallel import vocab_parallel_log_probs_from_logits

    def process(logits: torch.Tensor, label: torch.Tensor, label_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        best = logits.argmax(dim=-1)
        log_probs = vocab_parallel_log_probs_from_logits(logits, label)
        return {"log_probs": log_probs.masked_fill(~label_mask, 0.0), "argmax": best.masked_fill(~label_mask, 0)}

    return get_mcore_forward_fn(hf_config)(
        model,
        data["tokens"],
        data["mask"],
        data["position"],
        {},
        logits_processor=process,
        logits_processor_args={"label": data["label"], "label_mask": data["label_mask"]},
    )


def task_log_probs(job: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """Log-probabilities in eval mode; loss and gradient norm of one training-mode backward; names, fused kernels."""
    make_groups({}, job["device"])
    layout = {"transformer": task.get("transformer", {})}
    (model,), config, hf_config = build(job, layout, torch.float32, ddp=False)
    load([model], job["checkpoint"])
    data = batch(job, slice(None), job["device"])
    if job["device"] == "npu":
        from torch_npu import sim

        sim.reset_counts()
    with torch.no_grad():
        out = forward(model.eval(), hf_config, data)
    result: dict[str, Any] = {name: value.cpu() for name, value in out.items()}
    result["parameters"] = [name for name, _ in model.named_parameters()]
    if job["device"] == "npu":
        result["fused"] = {name: calls for name, calls in sim.op_counts().items() if not name.startswith("aten::")}
    if task.get("backward"):
        log_probs = forward(model.train(), hf_config, data)["log_probs"]
        loss = -log_probs.sum() / data["label_mask"].sum()
        loss.backward()
        result["loss"] = loss.item()
        squares = [p.grad.double().pow(2).sum().item() for p in model.parameters() if p.grad is not None]
        result["grad_norm"] = math.sqrt(sum(squares))
        result["without_gradient"] = [n for n, p in model.named_parameters() if p.grad is None]
    if task.get("gradients"):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.grad)
        result["gradients"] = given_to_rollout([model], config, hf_config, torch.float32)
    return result


class Trainer:
    """verl's modules in a layout with weights from the job's checkpoint, verl's optimizer, and steps with both."""

    def __init__(self, job: dict[str, Any], task: dict[str, Any]) -> None:
        from megatron.core.optimizer import OptimizerConfig
        from verl.utils.megatron.optimizer import get_megatron_optimizer
        from verl.utils.megatron_utils import register_megatron_training_hooks

        self.job = job
        self.dtype = getattr(torch, task.get("dtype", "float32"))
        make_groups(task["layout"], job["device"])
        self.modules, self.config, self.hf_config = build(job, task["layout"], self.dtype, ddp=True)
        load(self.modules, job["checkpoint"])
        rate = task.get("schedule", {}).get("rate", 1e-2)
        settings = {"optimizer": "adam", "lr": rate, "min_lr": rate, "clip_grad": 1.0, "weight_decay": 0.0}
        options = OptimizerConfig(
            **settings,
            use_distributed_optimizer=True,
            bf16=self.dtype == torch.bfloat16,
            params_dtype=self.dtype,
            **task.get("optimizer", {}),
        )
        self.optimizer = get_megatron_optimizer(self.modules, options)
        # As verl's configuration makes it: warm-up and rate are its own, whatever a checkpoint says.
        self.schedule = schedule(
            self.optimizer, **task.get("schedule", {"rate": 1e-2, "warmup": task.get("warmup", 0)})
        )
        register_megatron_training_hooks(self.modules, self.optimizer)

    def step(self) -> dict[str, Any]:
        """One optimizer step through Megatron's schedule: losses, gradient norm, number of changed weights."""
        from megatron.core import parallel_state
        from megatron.core.pipeline_parallel import get_forward_backward_func

        job, modules = self.job, self.modules
        rows, ranks = len(job["tokens"]), parallel_state.get_data_parallel_world_size()
        half = rows // 2
        batches = [batch(job, slice(i * half, (i + 1) * half), job["device"]) for i in range(2)]
        mine = batches[parallel_state.get_data_parallel_rank() :: ranks]
        # The loss of a micro-batch is summed over its tokens, so that how rows are spread over ranks does not matter.
        tokens = sum(int(b["label_mask"].sum()) for b in batches) / 2

        def forward_step(iterator: Any, model: Any) -> Any:
            data = next(iterator)
            out = forward(model, self.hf_config, data)

            def loss_function(output: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
                loss = -output["log_probs"].sum() / tokens
                return loss, {"loss": loss.item()}

            return out, partial(loss_function)

        for module in modules:
            module.train()
            module.zero_grad_buffer()
        self.optimizer.zero_grad()
        reported = get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=iter(mine),
            model=modules,
            num_microbatches=len(mine),
            seq_length=1,
            micro_batch_size=1,
            forward_only=False,
        )
        before = {name: p.detach().clone() for name, p in modules[0].named_parameters()}
        rate = self.optimizer.param_groups[0]["lr"]
        success, grad_norm, _ = self.optimizer.step()
        self.schedule.step(1)
        changed = sum(int((p != before[name]).any()) for name, p in modules[0].named_parameters())
        return {
            "losses": [entry["loss"] for entry in reported],
            "grad_norm": float(grad_norm),
            "success": success,
            "rate": rate,
            "changed": changed,
            "parameters": len(before),
        }


def task_replay(job: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """verl's actor with given choices of experts."""
    from tests.exactness.training.replayed import replay

    return replay(Trainer(job, task), task)


def schedule(optimizer: Any, rate: float, warmup: int) -> Any:
    """verl's learning rate schedule: constant after a warm-up of so many updates."""
    from omegaconf import OmegaConf
    from verl.utils.megatron.optimizer import get_megatron_optimizer_param_scheduler

    settings = {
        "lr": rate, "min_lr": 0.0, "lr_warmup_init": 0.0, "lr_warmup_steps": warmup, "lr_decay_steps": None,
        "total_training_steps": 100, "lr_decay_style": "constant", "weight_decay": 0.0,
        "weight_decay_incr_style": "constant", "use_checkpoint_opt_param_scheduler": False,
        "lr_wsd_decay_style": "exponential",
    }  # fmt: skip
    return get_megatron_optimizer_param_scheduler(optimizer, OmegaConf.create(settings))


def task_step(job: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """One optimizer step."""
    return Trainer(job, task).step()


def checkpoint_manager(trainer: Trainer, contents: Sequence[str] = ("model", "optimizer", "extra")) -> Any:
    """verl's, as its worker makes it."""
    from types import SimpleNamespace

    from verl.trainer.config import CheckpointConfig
    from verl.utils.checkpoint.megatron_checkpoint_manager import MegatronCheckpointManager

    return MegatronCheckpointManager(
        config=SimpleNamespace(model=SimpleNamespace(path=trainer.job["hf"])),
        checkpoint_config=CheckpointConfig(save_contents=list(contents)),
        model_config=None,
        transformer_config=trainer.config,
        role="actor",
        model=trainer.modules,
        arch=trainer.hf_config.architectures[0],
        hf_config=trainer.hf_config,
        param_dtype=trainer.dtype,
        share_embeddings_and_output_weights=bool(trainer.hf_config.tie_word_embeddings),
        processing_class=None,
        optimizer=trainer.optimizer,
        optimizer_scheduler=trainer.schedule,
        use_distributed_optimizer=True,
        use_dist_checkpointing=True,
    )


def worker(trainer: Trainer) -> Any:
    """What saving and loading a checkpoint touch of verl's worker; an actor without a rollout."""
    from types import SimpleNamespace

    return SimpleNamespace(
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        checkpoint_mananager=checkpoint_manager(trainer),
        config=SimpleNamespace(actor=SimpleNamespace(megatron=SimpleNamespace(seed=1))),
        **dict.fromkeys(("_is_offload_param", "_is_offload_optimizer", "_is_rollout"), False),
    )


def task_save(job: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """Two steps, a checkpoint in `task["directory"]`, and what would come next: random numbers and two steps."""
    from verl.workers.megatron_workers import ActorRolloutRefWorker

    trainer = Trainer(job, task)
    trainer.step()
    trainer.step()
    torch.manual_seed(50 + int(os.environ["RANK"]))
    ActorRolloutRefWorker.save_checkpoint(worker(trainer), task["directory"], None, 2)
    return after(trainer)


def task_steps(job: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """`task["steps"]` steps from the weights as they were loaded."""
    trainer = Trainer(job, task)
    return {"steps": [trainer.step() for _ in range(task["steps"])]}


def task_store(job: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint in `task["directory"]` of the weights as they were loaded, with the parts in `task["contents"]`."""
    checkpoint_manager(Trainer(job, task), task["contents"]).save_checkpoint(task["directory"], global_step=0)
    return {}


def task_resume(job: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """What comes after loading the checkpoint of `task_save` into a trainer that has not done anything."""
    from verl.workers.megatron_workers import ActorRolloutRefWorker

    trainer = Trainer(job, task)
    torch.manual_seed(99)
    ActorRolloutRefWorker.load_checkpoint(worker(trainer), task["directory"], del_local_after_load=False)
    return after(trainer) | {"transformer_engine": "transformer_engine" in sys.modules}


def task_move(job: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """Load the checkpoint in `task["directory"]` in another layout, and save what was loaded in `task["to"]`."""
    trainer = Trainer(job, task)
    manager = checkpoint_manager(trainer)
    manager.load_checkpoint(task["directory"])
    manager.save_checkpoint(task["to"], global_step=2)
    return {}


def misplaced(trainer: Trainer) -> int:
    """Parameters that decay though they are vectors, or do not though they are matrices."""
    return sum(
        (parameter.dim() == 1) != (one.optimizer.param_groups[group]["wd_mult"] == 0.0)
        for one in trainer.optimizer.chained_optimizers
        for parameter, (group, _) in one.model_param_group_index_map.items()
    )


def after(trainer: Trainer) -> dict[str, Any]:
    host, device = torch.rand(4), torch.rand(4, device=trainer.job["device"]).cpu()
    wrong = misplaced(trainer)
    return {"host": host, "device": device, "misplaced": wrong, "steps": [trainer.step(), trainer.step()]}


def task_elements(job: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """Load in a layout and hand back every local piece with its place in the whole tensor."""
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.mapping import ShardedTensor, apply_factories
    from megatron.core.dist_checkpointing.serialization import StrictHandling
    from verl.utils.megatron_utils import unwrap_model

    layout = task["layout"]
    make_groups(layout, job["device"])
    modules, _, _ = build(job, layout, getattr(torch, task["dtype"]), ddp=False, spec=task.get("spec", "verl"))
    load(modules, job["checkpoint"])
    model = unwrap_model(modules[0])
    if task.get("spec") == "local-grouped":
        # Its sharded tensors are copies, which verl's loader fills and drops: take them over as a resumed run does.
        state = dist_checkpointing.load(
            model.sharded_state_dict(), job["checkpoint"], strict=StrictHandling.ASSUME_OK_UNEXPECTED
        )
        model.load_state_dict(state)
    sharded = model.sharded_state_dict()
    apply_factories(sharded)
    pieces = [
        (piece.key, piece.global_offset, piece.data.detach().cpu().clone())
        for piece in nested_values(sharded)
        if isinstance(piece, ShardedTensor)
    ]
    return {"pieces": pieces}


def given_to_rollout(modules: list[Any], config: Any, hf_config: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What verl would give the rollout of these modules: every Hugging Face tensor."""
    from verl.models.mcore import get_mcore_weight_converter
    from verl.utils.megatron_utils import per_tensor_generator

    names = {"qkv_layer_name": "self_attention.linear_qkv.", "gate_proj_layer_name": "linear_fc1."}
    converter = get_mcore_weight_converter(hf_config, dtype)
    given = per_tensor_generator(modules, hf_config, converter, config, names)
    return {name: tensor.cpu().clone() for name, tensor in given}


def task_reshard(job: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """Load in a layout and hand back what verl would give the rollout."""
    dtype = getattr(torch, task["dtype"])
    make_groups(task["layout"], job["device"])
    modules, config, hf_config = build(job, task["layout"], dtype, ddp=False)
    load(modules, job["checkpoint"])
    return {"tensors": given_to_rollout(modules, config, hf_config, dtype)}


def run(job: dict[str, Any], rank: int) -> None:
    start(job["device"], job["mindspeed"], job["reverted"], job["transformer"])
    results = []
    for task in job["tasks"]:
        merged = {**job, **{k: task[k] for k in ("hf", "checkpoint", "tokens", "lengths", "derive") if k in task}}
        results.append(globals()[f"task_{task['task']}"](merged, task))
    torch.save(results, f"{job['out']}.{rank}")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
