# SPDX-License-Identifier: Apache-2.0
"""One rank of the rollout exactness test: verl's rollout on the simulated NPU against Hugging Face, token for token.

For tests/ranks.py, with VLLM_DP_SIZE and VLLM_USE_V1 set; the job is the case. Writes what it measured to
`<directory>/rank<RANK>.json`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import verl_patches.prelude_patch  # noqa: F401  lays the overlay over what is imported from here on

# isort: split
import torch
import torch.distributed as dist
import vllm.v1.engine.llm_engine  # noqa: F401  imported here once, not by each rank
import vllm_ascend.models.deepseek_v2
import vllm_ascend.worker.worker_v1  # noqa: F401
from tensordict import TensorDict
from torch.distributed.device_mesh import init_device_mesh
from transformers import PreTrainedModel
from verl import DataProto
from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.rollout.base import get_rollout_class

from recipe.recorder import read_events
from tests.exactness import hugging_face
from verl_patches.routing_replay import COLUMN, choices_in

PROMPT, RESPONSE = 16, 16


def run(case: dict[str, Any], rank: int) -> None:
    world, tp = int(os.environ["WORLD_SIZE"]), case["tp"]
    directory = Path(case["directory"])
    torch.npu.set_device(rank)
    dist.init_process_group("hccl")
    mesh = init_device_mesh("npu", mesh_shape=(world // tp, tp, 1), mesh_dim_names=["dp", "infer_tp", "infer_pp"])
    let_v1_take_float32()

    reference = reference_model(case)
    rollout = get_rollout_class("vllm", "sync")(
        config=RolloutConfig(
            name="vllm",
            mode="sync",
            prompt_length=PROMPT,
            response_length=RESPONSE,
            tensor_model_parallel_size=tp,
            dtype="float32",
            load_format="dummy",
            enforce_eager=not case["graph"],
            gpu_memory_utilization=0.3,
            max_num_seqs=case["at_once"],
            max_num_batched_tokens=case["token_budget"],
            calculate_log_probs=True,
            free_cache_engine=True,
            enable_prefix_caching=False,
            ignore_eos=True,
            engine_kwargs={"vllm": {"additional_config": {"torchair_graph_config": graph_options(case)}}},
        ),
        model_config=HFModelConfig(path=str(directory / "model")),
        device_mesh=mesh,
    )
    core = rollout.inference_engine.llm_engine.engine_core.engine_core
    runner = core.model_executor.driver_worker.worker.model_runner
    held_for_training = torch.npu.memory_allocated() - rollout.device_bytes
    engine = rank // tp
    prompts = sample_prompts(case["sequences"] - 5 * engine, seed=100 + engine)
    asyncio.run(rollout.release())

    cycles = []
    for cycle in range(3):
        if cycle:
            change_weights(reference, seed=cycle)
        draw_random_numbers()
        before = random_states()
        asyncio.run(rollout.resume(["weights"]))
        asyncio.run(rollout.update_weights(named_weights(reference)))
        asyncio.run(rollout.resume(["kv_cache"]))
        blocks = {len(cache[0]) for cache in runner.kv_caches}
        random_kept = before == random_states()
        with places_of_reductions() as reduced_on:
            output = generate(rollout, prompts)
        asyncio.run(rollout.release())
        responses = output.batch["responses"].tolist()
        wrong, difference = compare(reference, prompts, responses, output.batch["rollout_log_probs"].tolist())
        cycles.append(
            {
                "wrong_tokens": wrong,
                "log_prob_difference": difference,
                "responses": responses,
                "choices": compare_choices(reference, prompts, responses, output),
                "kv_blocks_as_scheduled": blocks == {core.scheduler.kv_cache_config.num_blocks},
                "random_states_kept": random_kept,
                "released_bytes_ledger": rollout.device_bytes,
                "released_bytes_device": torch.npu.memory_allocated() - held_for_training,
            }
        )
    own_events = [event for event in read_events(directory) if event["pid"] == os.getpid()]
    report = {
        "cycles": cycles,
        "steps": [event for event in own_events if event["kind"] == "rollout_steps"],
        "expert_parallel": runner.parallel_config.expert_parallel_size,
        "reduced_by_hosts": "cpu" in reduced_on,
        "first_of_engine": rank % tp == 0,
    }
    (directory / f"rank{rank}.json").write_text(json.dumps(report), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def graph_options(case: dict[str, Any]) -> dict[str, Any]:
    names = ("enable_kv_nz", "enable_multistream_mla", "enable_multistream_moe")
    asked = (case["kv_nz"], case["multistream"], case["multistream"])
    return {name: True for name, on in zip(names, asked, strict=True) if on}


def let_v1_take_float32() -> None:
    """vLLM's V1 engine is offered for 16-bit types only; in those, equality with Hugging Face could not be shown."""
    from vllm.engine.arg_utils import EngineArgs

    EngineArgs._is_v1_supported_oracle = lambda self, model_config: True


def reference_model(case: dict[str, Any]) -> PreTrainedModel:
    """A random model with weights of real size: a default initialisation is nearly uniform and agrees with anything."""
    from recipe.tiny.build import random_model
    from recipe.tiny.members import DEEPSEEK_V3

    hugging_face.restore()
    model = random_model(
        case["seed"], case["sizes"], case.get("member", DEEPSEEK_V3), num_hidden_layers=case["layers"]
    ).eval()
    generator = torch.Generator().manual_seed(case["seed"])
    head = "embed_tokens" if model.config.tie_word_embeddings else "lm_head"
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
            elif parameter.dim() > 1:
                sharpness = 3.0 if head in name else 1.0
                is_embedding = "embed_tokens" in name and head not in name
                scale = 1.0 if is_embedding else sharpness * parameter.shape[1] ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            else:
                parameter.copy_(1 + 0.2 * torch.randn(parameter.shape, generator=generator))
        for bias in router_biases(model).values():
            bias.copy_(0.1 * torch.randn(bias.shape, generator=generator))
    return model


def change_weights(model: PreTrainedModel, seed: int) -> None:
    """Every weight and router bias becomes another one of about its size, as if training had gone on for long."""
    generator = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for tensor in [*model.parameters(), *router_biases(model).values()]:
            tensor.add_(torch.randn(tensor.shape, generator=generator) * tensor.std() * 0.3)


def router_biases(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: buffer for name, buffer in model.named_buffers() if name.endswith("e_score_correction_bias")}


def named_weights(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights as verl's converter yields them: Hugging Face names, on the device."""
    for name, tensor in {**dict(model.named_parameters()), **router_biases(model)}.items():
        yield name, tensor.detach().to("npu")


def sample_prompts(count: int, seed: int) -> list[list[int]]:
    generator = random.Random(seed)
    return [[generator.randrange(8, 200) for _ in range(generator.randrange(2, PROMPT))] for _ in range(count)]


def generate(rollout: Any, prompts: list[list[int]]) -> DataProto:
    """Greedy responses, through verl's batch interface."""
    return rollout.generate_sequences(batch_of(prompts, PROMPT, do_sample=False))


def batch_of(prompts: list[list[int]], width: int, *, do_sample: bool) -> DataProto:
    """Prompts padded on the left to `width`, as verl's workers get them."""
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    batch = DataProto(
        batch=TensorDict({"input_ids": ids, "attention_mask": mask, "position_ids": positions}, len(prompts)).to("npu"),
        meta_info={"eos_token_id": 1, "pad_token_id": 0, "do_sample": do_sample},
    )
    batch.non_tensor_batch["raw_prompt_ids"] = object_array(prompts)
    return batch


def object_array(rows: list[list[int]]) -> Any:
    import numpy as np

    array = np.empty(len(rows), dtype=object)
    array[:] = rows
    return array


def compare(
    model: PreTrainedModel, prompts: list[list[int]], responses: list[list[int]], log_probs: list[list[float]]
) -> tuple[int, float]:
    """Tokens that are not Hugging Face's greedy choice, and the largest |difference| of a token's log-probability."""
    wrong, largest = 0, 0.0
    for prompt, response, found in zip(prompts, responses, log_probs, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits.double(), -1)
        tokens = torch.tensor(response)
        wrong += int((expected.argmax(-1) != tokens).sum())
        largest = max(largest, float((expected[range(len(tokens)), tokens] - torch.tensor(found)).abs().max()))
    return wrong, largest


def compare_choices(
    model: PreTrainedModel, prompts: list[list[int]], responses: list[list[int]], output: DataProto
) -> dict[str, Any] | None:
    """How many choices of experts were handed on, of how many tokens; and how many are not Hugging Face's."""
    column = output.non_tensor_batch.get(COLUMN)
    if column is None:
        return None
    wrong, tokens, choices = 0, 0, choices_in(column)
    for prompt, response, found in zip(prompts, responses, choices, strict=True):
        expected = chosen_by(model, prompt + response[:-1])
        assert found.shape == expected.shape, f"{found.shape}, expected {tuple(expected.shape)}"
        wrong += int((torch.from_numpy(found).long().sort(dim=-1)[0] != expected).any(dim=-1).sum())
        tokens += len(found)
    return {"type": str(choices[0].dtype), "tokens": tokens, "wrong": wrong}


def chosen_by(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    """The experts that Hugging Face's routers choose, in ascending order: [tokens, layers with experts, k]."""
    routed: list[torch.Tensor] = []
    routers = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "gate")]

    def note(router: Any, args: Any, output: Any) -> None:
        # DeepSeek-V3's routers give choices and weights, Qwen3's logits.
        chosen = output[0] if isinstance(output, tuple) else output.topk(model.config.num_experts_per_tok).indices
        routed.append(chosen)

    handles = [router.register_forward_hook(note) for router in routers]
    with torch.no_grad():
        model(torch.tensor([tokens]))
    for handle in handles:
        handle.remove()
    return torch.stack(routed, dim=1).sort(dim=-1)[0]


@contextmanager
def places_of_reductions() -> Iterator[set[str]]:
    """Collects where all-reduces take place within the block: "cpu" (Gloo) or "npu" (HCCL)."""
    seen, real = set(), dist.all_reduce

    def all_reduce(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.add(tensor.device.type)
        return real(tensor, *args, **kwargs)

    dist.all_reduce = all_reduce
    try:
        yield seen
    finally:
        dist.all_reduce = real


def draw_random_numbers() -> None:
    """Move every generator on, so that seeding it as the engine does would be seen."""
    import numpy as np

    random.random(), np.random.rand(), torch.rand(1), torch.rand(1, device="npu")


def random_states() -> list[Any]:
    """Digests of the states of Python's, NumPy's and PyTorch's generators."""
    import numpy as np

    numpy_state = np.random.get_state()
    return [
        hash(random.getstate()),
        (hash(numpy_state[1].tobytes()), numpy_state[2]),
        hash(bytes(torch.get_rng_state().tolist())),
        hash(bytes(torch.npu.get_rng_state().cpu().tolist())),
    ]
