# SPDX-License-Identifier: Apache-2.0
"""Models of real size in their weights, converted once, and processes that compute with them."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DeepseekV3Config, PretrainedConfig

from recipe.tiny.hugging_face import model_class
from recipe.tiny.sizes import LEGAL, SIZES, SMALLEST
from recipe.weights.convert import convert
from tests.ranks import Ranks

ROOT = Path(__file__).resolve().parents[3]
PLAIN = ("verl_patches.prelude_patch", "verl.workers.megatron_workers")


def deepseek_v3(sizes: dict[str, Any]) -> PretrainedConfig:
    """A tiny DeepSeek-V3 of these sizes."""
    return DeepseekV3Config(
        **sizes, num_key_value_heads=sizes["num_attention_heads"], vocab_size=320, n_shared_experts=1,
        first_k_dense_replace=1, max_position_embeddings=256, routed_scaling_factor=1.5, tie_word_embeddings=False,
        pad_token_id=0, num_nextn_predict_layers=0,
        rope_scaling={
            "type": "yarn", "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
            "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
        },
    )  # fmt: skip


def make_model(directory: Path, config: PretrainedConfig) -> Any:
    """The model in float32 with outputs far from uniform: unit-variance activations, sharp logits."""
    generator = torch.Generator().manual_seed(7)
    model = model_class(config)(config)
    head = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith(".bias"):
                tensor.copy_(0.5 * noise)
            elif tensor.dim() == 1:
                tensor.copy_(1 + 0.2 * noise)
            elif name == head:
                tensor.copy_(3 * noise / tensor.shape[-1] ** 0.5)
            elif name == "model.embed_tokens.weight":
                tensor.copy_(noise)  # the pad row too: a zero row divides by eps in the first norm
            else:
                tensor.copy_(noise / tensor.shape[-1] ** 0.5)
        for name, tensor in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    model.save_pretrained(directory)
    return model.eval()


class Case:
    """A Hugging Face model, its converted checkpoint, and a batch of sequences of different lengths.

    `strict` is the level at which the simulated device computes with it.
    """

    def __init__(self, directory: Path, rows: int, config: PretrainedConfig, strict: str = "0") -> None:
        self.hf, self.checkpoint, self.strict = directory / "hf", directory / "mcore", strict
        self.model = make_model(self.hf, config)
        convert(self.hf, self.checkpoint)
        generator = torch.Generator().manual_seed(11)
        self.lengths = torch.randint(9, 40, (rows,), generator=generator).tolist()
        tokens = torch.randint(0, 320, (rows, max(self.lengths)), generator=generator)
        tokens[:, 3] = 0  # the pad id inside a sequence is a token like any other
        self.tokens = tokens.tolist()

    @property
    def fields(self) -> dict[str, Any]:
        return {
            "hf": str(self.hf), "checkpoint": str(self.checkpoint), "tokens": self.tokens, "lengths": self.lengths
        }  # fmt: skip

    def reference(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Hugging Face's log-probabilities of the next token and its argmaxes, laid out as the job's results."""
        shape = (len(self.tokens), max(self.lengths))
        log_probs, argmax = torch.zeros(shape), torch.zeros(shape, dtype=torch.long)
        for row, length in enumerate(self.lengths):
            ids = torch.tensor([self.tokens[row][:length]])
            with torch.no_grad():
                logits = self.model(ids).logits[0, :-1]
            chosen = logits.log_softmax(-1).gather(1, ids[0, 1:, None])
            log_probs[row, : length - 1] = chosen[:, 0]
            argmax[row, : length - 1] = logits.argmax(-1)
        return log_probs, argmax

    def gradients(self) -> dict[str, torch.Tensor]:
        """Hugging Face's gradients of the mean negative log-probability of a next token, by its names."""
        self.model.zero_grad()
        # With it the pad id's row has no gradient, though it stands in the sequences here as any other.
        self.model.model.embed_tokens.padding_idx = None
        tokens = sum(length - 1 for length in self.lengths)
        for row, length in enumerate(self.lengths):
            ids = torch.tensor([self.tokens[row][:length]])
            log_probs = self.model(ids).logits[0, :-1].log_softmax(-1)
            (-log_probs.gather(1, ids[0, 1:, None]).sum() / tokens).backward()
        found = {name: tensor.grad for name, tensor in self.model.named_parameters() if tensor.grad is not None}
        self.model.zero_grad()
        return found

    def distance(self, result: dict[str, Any]) -> tuple[float, int]:
        """Largest difference of a log-probability from Hugging Face's, and number of other argmaxes."""
        log_probs, argmax = self.reference()
        # A nearly uniform model agrees with anything.
        assert log_probs.min() < -2 * math.log(320)
        return (result["log_probs"] - log_probs).abs().max().item(), int((result["argmax"] != argmax).sum())


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(
        tmp_path_factory.mktemp("tiny"), rows=6, config=deepseek_v3(SIZES[SMALLEST] | {"num_experts_per_tok": 2})
    )


@pytest.fixture(scope="session")
def many_experts(tmp_path_factory: pytest.TempPathFactory) -> Case:
    experts = {
        name: SIZES[LEGAL][name] for name in ("n_routed_experts", "num_experts_per_tok", "n_group", "topk_group")
    }
    sizes = SIZES[SMALLEST] | experts | {"moe_intermediate_size": 16, "num_hidden_layers": 2}
    return Case(tmp_path_factory.mktemp("many"), rows=4, config=deepseek_v3(sizes))


@pytest.fixture(scope="session")
def legal(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("legal"), rows=4, config=deepseek_v3(SIZES[LEGAL]), strict="float32")


MODELS = ("tiny", pytest.param("legal", marks=pytest.mark.slow))


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Case:
    """The smallest model, and the one whose sizes an NPU takes, on a device that refuses what an NPU refuses."""
    case: Case = request.getfixturevalue(request.param)
    return case


@pytest.fixture(scope="session")
def run_job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[list[dict[str, Any]]]]]:
    """Run tasks in `world` processes on a device; result[rank][task].

    mindspeed: an upstream tree with MindSpeed, which then takes part; reverted: ids of patches to take off before;
    transformer: what MindSpeed is told besides; replay: whether routers take given choices, as in a run file;
    stages: layers of the pipeline stages, as the launcher lists them where Megatron-core's keys cannot say them;
    limit: seconds that the processes may take.
    """
    logs = tmp_path_factory.mktemp("ranks")

    @functools.cache
    def ranks_on(device: str, mindspeed: Path | None, strict: str, replay: str, stages: str) -> Ranks:
        # MindSpeed, and a host that is to pass for a device, come before verl: each rank imports it by itself.
        ready = PLAIN if device == "npu" and mindspeed is None else ()
        started.append(Ranks(*ready, "tests.exactness.training.model_process", log=logs / f"{len(started)}"))
        return started[-1]

    def run(
        case: Case,
        tasks: list[dict[str, Any]],
        *,
        device: str,
        world: int = 1,
        mindspeed: Path | None = None,
        reverted: tuple[str, ...] = (),
        transformer: dict[str, Any] | None = None,
        replay: str = "off",
        stages: str = "",
        limit: float = 300,
    ) -> list[list[dict[str, Any]]]:
        directory = tmp_path_factory.mktemp("job")
        job = {
            **case.fields, "device": device, "tasks": tasks, "out": str(directory / "result"),
            "mindspeed": mindspeed is not None, "reverted": reverted, "transformer": transformer,
        }  # fmt: skip
        environment = {
            "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1", "HF_HUB_OFFLINE": "1",
            "NPU_SIM_STRICT": case.strict, "RECIPE_ROUTING_REPLAY": replay,
            "RECIPE_STAGE_LAYERS": stages,
        }  # fmt: skip
        if mindspeed is not None:
            environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(mindspeed), os.environ["PYTHONPATH"]])
        if device == "cpu":
            environment["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
        ranks = ranks_on(device, mindspeed, case.strict, replay, stages)
        ranks.run(job, directory / "rank", ranks=world, limit_s=limit, **environment)
        # Our own file of a moment ago.
        return [torch.load(directory / f"result.{rank}", weights_only=True) for rank in range(world)]

    started: list[Ranks] = []
    yield run
    for one in started:
        one.close()
