# SPDX-License-Identifier: Apache-2.0
"""verl's own workers of a die, led through phases in any order, with verl's order of offloads or ours.

For tests/ranks.py; the job's `stock` takes our offload off. A rank writes `<out>.<rank>.json`: of every phase its name,
where the actor's weights are behind it, what they are, what the rollout was given, and the copies and page-locked
blocks that it took.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import verl_patches.prelude_patch  # noqa: F401  lays the overlay over what is imported from here on

# isort: split
import torch
import vllm.v1.engine.llm_engine  # noqa: F401  imported here once, not by each rank
import vllm_ascend.models.deepseek_v2
import vllm_ascend.worker.worker_v1  # noqa: F401
from hydra import compose, initialize_config_module
from torch_npu import _sim, sim

from recipe.overlay import revert
from recipe.rehearse.batches import Lengths, prompts, sequences
from recipe.rehearse.counters import Counters
from recipe.rehearse.saving import save
from recipe.rehearse.step import build_workers
from verl_patches.utils.weight_places import weights_on_die

OFFLOAD = "verl_patches.utils.megatron_utils:offload_megatron_model_to_cpu"
RATE = 0.01  # large enough that an update shows in bfloat16


def run(job: dict[str, Any], rank: int) -> None:
    """What one rank does."""
    if job["stock"]:
        revert(OFFLOAD)
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_megatron_trainer", overrides=job["overrides"]).actor_rollout_ref
    config.actor.optim.lr, config.actor.optim.lr_warmup_steps = RATE, 0
    torch.manual_seed(1)
    counters = Counters()
    workers = build_workers(config, counters)
    die = Die(workers.actor, workers.reference, counters, job)
    phases = [die.phase(name) for name in job["phases"]]
    Path(f"{job['out']}.{rank}.json").write_text(json.dumps({"phases": phases, **die.sizes()}))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


class Die:
    """The workers of a die, and what is asked of them.

    Args:
        actor, reference: verl's.
        counters: read at their loads and offloads.
        job: lengths and batches.
    """

    def __init__(self, actor: Any, reference: Any, counters: Counters, job: dict[str, Any]) -> None:
        self._actor, self._reference, self._counters, self._job = actor, reference, counters, job
        self._lengths = Lengths.full(job["prompt"], job["response"])
        self._vocabulary = int(actor.hf_config.vocab_size)
        self._directory = Path(job["out"]).parent / "checkpoints"
        self._step = 0
        self._given, self._read = "", 0
        update = actor.rollout.update_weights

        async def update_weights(weights: Any, **kwargs: Any) -> None:
            await update(weights, **kwargs)
            parameters = list(actor.rollout._model.parameters())
            self._given, self._read = digest(parameters), sum(parameter.nbytes for parameter in parameters)

        actor.rollout.update_weights = update_weights

    def phase(self, name: str) -> dict[str, Any]:
        """Do it, and say what there is behind it."""
        work: dict[str, Callable[[], Any]] = {
            "generate": self._generate, "update": self._update, "log_prob": self._log_prob,
            "ref": lambda: self._reference.compute_ref_log_prob(self._sequences()),
            "save": self._save, "load": self._load,
        }  # fmt: skip
        self._step += 1
        self._given, self._read = "", 0
        torch.manual_seed(self._step)
        sim.reset_traffic()
        with self._counters.measured(name):
            work[name]()
        on_die = weights_on_die(self._actor.actor_module)
        counted = dataclasses.asdict(sim.host_traffic())
        # The peak of the first reading is that of what was before.
        peak = max(reading.peak for reading in self._counters.of(name)[1:])
        places = [b.param_data if on_die else b.param_data.cpu_data for b in self._buffers()]
        return {
            "name": name, "on_die": on_die, "weights": digest(places), "rollout": self._given, "peak": peak,
            "pinned": _sim.pinned_bytes(), "places": [b.param_data.cpu_data.data_ptr() for b in self._buffers()],
            "read": self._read,
            "gradients": sum(b.grad_data.untyped_storage().size() for b in self._buffers()), **counted,
        }  # fmt: skip

    def sizes(self) -> dict[str, int]:
        """Bytes of the actor's and the reference's weights."""
        reference = sum(p.numel() * p.element_size() for m in self._reference.ref_module for p in m.parameters())
        return {"actor": sum(b.param_data.cpu_data.nbytes for b in self._buffers()), "reference": reference}

    def _buffers(self) -> list[Any]:
        return [b for module in self._actor.actor_module for b in (*module.buffers, *module.expert_parallel_buffers)]

    def _generate(self) -> None:
        self._actor.generate_sequences(prompts(self._job["rollout_sequences"], self._lengths, self._vocabulary))

    def _save(self) -> None:
        self._saved = self._directory / f"global_step_{self._step}"
        save(self._actor, self._saved, self._step)

    def _load(self) -> None:
        self._actor.load_checkpoint(str(self._saved / "actor"), del_local_after_load=False)

    def _log_prob(self) -> None:
        self._actor.compute_log_prob(self._sequences())

    def _update(self) -> None:
        data = self._sequences()
        zeros = torch.zeros(data.batch["responses"].shape)
        data.batch["old_log_probs"], data.batch["ref_log_prob"] = zeros, zeros.clone()
        data.meta_info["global_token_num"] = self._lengths.tokens(len(data))
        self._actor.update_actor(data)

    def _sequences(self) -> Any:
        return sequences(self._job["actor_sequences"], self._lengths, self._vocabulary)


def digest(tensors: list[torch.Tensor]) -> str:
    """The same for the same bytes only."""
    read = sha256()
    for tensor in tensors:
        read.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return read.hexdigest()
