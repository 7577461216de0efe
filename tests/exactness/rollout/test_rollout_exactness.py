# SPDX-License-Identifier: Apache-2.0
"""vLLM-Ascend on the simulated NPU, through verl's rollout with our patches, equals Hugging Face's models.

In fp32 and greedily: every token the same and |difference of log-probability| at most 1e-5, first as built and then
after two more cycles of release, resume and a sync of changed weights, for each parallel layout.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from recipe.tiny.members import DEEPSEEK_V3, GROUPED, LLAMA, MOONLIGHT, QWEN2, QWEN3, QWEN3_MOE
from recipe.tiny.sizes import LEGAL, SMALLEST
from tests.ranks import Ranks

LIMIT_S = 600
MIB = 1 << 20
# What may be left on the device after a release. vLLM-Ascend keeps its workspace for prompts in pieces: 6144 tokens for
# twelve sequences, of 2304 bytes each where the latent has 512 + 64 elements.
KEPT = {SMALLEST: 4 * MIB, LEGAL: 20 * MIB}


@dataclass(frozen=True)
class Layout:
    tp: int
    dp: int
    graph: bool = False
    kv_nz: bool = False
    multistream: bool = False
    sequences: int = 12
    at_once: int = 12
    token_budget: int = 256
    seed: int = 11
    dp_sync_on_device: bool = False
    replay: str = "off"
    sizes: str = SMALLEST
    layers: int = 3
    member: str = DEEPSEEK_V3

    @property
    def strict(self) -> str:
        """The level of the simulated device: an NPU's, but for float32, where it takes the sizes."""
        return "float32" if self.sizes == LEGAL or self.member in GROUPED else "0"

    @property
    def world(self) -> int:
        return self.tp * self.dp


LAYOUTS = {
    # A token budget below the longest sequence (32): prompts are prefilled in pieces beside decoding ones.
    "tp1-chunked": Layout(tp=1, dp=1, token_budget=24),
    "tp1-graph": Layout(tp=1, dp=1, graph=True),
    "tp1-graph-nz": Layout(tp=1, dp=1, graph=True, kv_nz=True),
    "tp2": Layout(tp=2, dp=1),
    "tp2-graph-multistream": Layout(tp=2, dp=1, graph=True, multistream=True),
    # Of two engines the first has more prompts than it may run at once: the second goes on with empty batches.
    "dp2-ep2": Layout(tp=1, dp=2, at_once=8),
    "dp2-ep2-device-sync": Layout(tp=1, dp=2, at_once=8, dp_sync_on_device=True),
    # The experts that are chosen for each token are kept.
    "replay-tp1-chunked": Layout(tp=1, dp=1, token_budget=24, replay="rollout"),
    "replay-tp1-graph": Layout(tp=1, dp=1, graph=True, replay="rollout"),
    "replay-tp2": Layout(tp=2, dp=1, replay="rollout"),
    "replay-dp2-ep2": Layout(tp=1, dp=2, at_once=8, replay="rollout"),
    "replay-dp2-ep2-graphs": Layout(tp=1, dp=2, at_once=8, graph=True, replay="rollout"),
    "dp2-ep2-graphs": Layout(tp=1, dp=2, at_once=8, graph=True, dp_sync_on_device=True),
    # In sizes that an NPU takes, on a device that refuses all others.
    "legal-tp1-chunked": Layout(tp=1, dp=1, token_budget=24, sizes=LEGAL, layers=2),
    "legal-tp1-graph": Layout(tp=1, dp=1, graph=True, sizes=LEGAL, layers=2),
    "legal-tp1-graph-nz": Layout(tp=1, dp=1, graph=True, kv_nz=True, sizes=LEGAL, layers=2),
    "legal-dp2-ep2": Layout(tp=1, dp=2, at_once=8, sizes=LEGAL, layers=2),
    "legal-replay-tp1-graph": Layout(tp=1, dp=1, graph=True, sizes=LEGAL, layers=2, replay="rollout"),
    # The other families.
    "qwen3-tp1-chunked": Layout(tp=1, dp=1, token_budget=24, member=QWEN3),
    "qwen3-tp2": Layout(tp=2, dp=1, member=QWEN3),
    "qwen3-dp2": Layout(tp=1, dp=2, at_once=8, member=QWEN3),
    "qwen2-tp1-chunked": Layout(tp=1, dp=1, token_budget=24, member=QWEN2),
    "qwen2-tp2": Layout(tp=2, dp=1, member=QWEN2),
    "llama-tp1-chunked": Layout(tp=1, dp=1, token_budget=24, member=LLAMA),
    "llama-tp2": Layout(tp=2, dp=1, member=LLAMA),
    "moonlight-tp1-chunked": Layout(tp=1, dp=1, token_budget=24, member=MOONLIGHT),
    "moonlight-tp1-graph": Layout(tp=1, dp=1, graph=True, member=MOONLIGHT),
    "moonlight-tp2": Layout(tp=2, dp=1, member=MOONLIGHT),
    "moonlight-dp2-ep2": Layout(tp=1, dp=2, at_once=8, member=MOONLIGHT),
    "qwen3_moe-tp1-chunked": Layout(tp=1, dp=1, token_budget=24, member=QWEN3_MOE),
    "qwen3_moe-tp2": Layout(tp=2, dp=1, member=QWEN3_MOE),
    "qwen3_moe-dp2-ep2": Layout(tp=1, dp=2, at_once=8, member=QWEN3_MOE),
    "replay-qwen3_moe-dp2-ep2": Layout(tp=1, dp=2, at_once=8, member=QWEN3_MOE, replay="rollout"),
    "replay-moonlight-tp1-graph": Layout(tp=1, dp=1, graph=True, member=MOONLIGHT, replay="rollout"),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Runs a layout's ranks, once, and returns what each of them measured."""
    logs = tmp_path_factory.mktemp("ranks")
    done: dict[str, list[dict[str, Any]]] = {}

    @functools.cache
    def ranks(on_device: bool, strict: str, replay: str) -> Ranks:
        # Who reduces and what is kept is decided when vLLM is imported, and what is refused when torch_npu is.
        return Ranks("tests.exactness.rollout.engine_process", log=logs / f"{on_device}-{strict}-{replay}")

    def measure(name: str) -> list[dict[str, Any]]:
        if name not in done:
            layout = LAYOUTS[name]
            started.append(ranks(layout.dp_sync_on_device, layout.strict, layout.replay))
            done[name] = run_ranks(started[-1], layout, model_directory(tmp_path_factory.mktemp(name), layout))
        return done[name]

    started: list[Ranks] = []
    yield measure
    for one in started:
        one.close()


def model_directory(directory: Path, layout: Layout) -> Path:
    """Configuration and tokenizer; the weights are synced from the reference model, as verl syncs them."""
    from recipe.tiny.config import tiny_config
    from recipe.tiny.tokenizer import save_tokenizer

    tiny_config(layout.sizes, layout.member, num_hidden_layers=layout.layers).save_pretrained(directory / "model")
    save_tokenizer(directory / "model")
    return directory


def run_ranks(ranks: Ranks, layout: Layout, directory: Path) -> list[dict[str, Any]]:
    environment = {
        "VLLM_DP_SIZE": str(layout.dp),
        "VLLM_USE_V1": "1",
        "RECIPE_DP_SYNC_ON_DEVICE": str(int(layout.dp_sync_on_device)),
        "RECIPE_ROUTING_REPLAY": layout.replay,
        "NPU_SIM_HBM": "1GiB" if layout.sizes == LEGAL else "256MiB",
        "NPU_SIM_STRICT": layout.strict,
        "RECIPE_RUN_DIR": str(directory),
    }
    case = asdict(layout) | {"directory": str(directory)}
    ranks.run(case, directory / "rank", ranks=layout.world, limit_s=LIMIT_S, **environment)
    return [json.loads((directory / f"rank{rank}.json").read_text()) for rank in range(layout.world)]


QUICK = ("qwen3-tp1-chunked", "moonlight-tp1-chunked", "qwen3_moe-dp2-ep2")
OTHERS = [name for name, layout in LAYOUTS.items() if layout.sizes == LEGAL or layout.member != DEEPSEEK_V3]
SLOW = {name: [pytest.mark.slow] for name in OTHERS if name not in QUICK}
PROOFS = {
    "tp1-graph-nz": [pytest.mark.proves("vllm_ascend_patches.attention.mla_v1:AscendMLAImpl")],
    "moonlight-tp1-chunked": [pytest.mark.proves("vllm_ascend_patches.models.deepseek_v2:plain_rotary")],
}
NAMES = [pytest.param(name, marks=SLOW.get(name, [])) for name in LAYOUTS]


@pytest.mark.parametrize("name", [pytest.param(name, marks=(SLOW | PROOFS).get(name, [])) for name in LAYOUTS])
def test_tokens_and_log_probabilities_equal_hugging_face_after_every_sync(measured: Any, name: str) -> None:
    ranks = measured(name)
    for rank, report in enumerate(ranks):
        assert len(report["cycles"]) == 3
        for cycle, found in enumerate(report["cycles"]):
            assert found["wrong_tokens"] == 0, f"rank {rank}, cycle {cycle}"
            assert found["log_prob_difference"] <= 1e-5, f"rank {rank}, cycle {cycle}"
    texts = [found["responses"] for found in ranks[0]["cycles"]]
    assert texts[0] != texts[1] != texts[2], "the changed weights did not reach the rollout"


def test_the_devices_reduce_what_the_hosts_did(measured: Any) -> None:
    """Whether engines agree over Gloo or HCCL, they sample the same tokens."""
    for by_hosts, by_devices in zip(measured("dp2-ep2"), measured("dp2-ep2-device-sync"), strict=True):
        responses = [[found["responses"] for found in one["cycles"]] for one in (by_hosts, by_devices)]
        assert responses[0] == responses[1]
        assert by_hosts["reduced_by_hosts"] and not by_devices["reduced_by_hosts"]


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_given_back_and_the_cache_comes_back_as_scheduled(measured: Any, name: str) -> None:
    most = KEPT[LAYOUTS[name].sizes]
    for report in measured(name):
        for found in report["cycles"]:
            assert 0 < found["released_bytes_ledger"] <= most
            assert found["released_bytes_device"] <= most
            assert found["kv_blocks_as_scheduled"]
            assert found["random_states_kept"]


def test_tensor_parallel_ranks_sample_the_same(measured: Any) -> None:
    first, second = measured("tp2")
    assert [found["responses"] for found in first["cycles"]] == [found["responses"] for found in second["cycles"]]


@pytest.mark.proves(
    "vllm_ascend_patches.worker.model_runner_v1:load_model",
    "vllm_ascend_patches.worker.model_runner_v1:execute_model",
)
@pytest.mark.parametrize("name", NAMES)
def test_the_choices_of_experts_are_those_of_hugging_face(measured: Any, name: str) -> None:
    """Of every token of every sequence but the last, in every layer with experts."""
    layout = LAYOUTS[name]
    for report in measured(name):
        for found in report["cycles"]:
            choices = found["choices"]
            if layout.replay == "off":
                assert choices is None
            elif report["first_of_engine"]:
                assert choices["tokens"] >= (layout.sequences - 5) * 15
                assert (choices["type"], choices["wrong"]) == ("uint8", 0)


@pytest.mark.parametrize("name", NAMES)
def test_experts_are_spread_over_all_ranks(measured: Any, name: str) -> None:
    layout = LAYOUTS[name]
    for report in measured(name):
        assert report["expert_parallel"] == (1 if layout.member in (QWEN3, QWEN2, LLAMA) else layout.world)


def test_all_engines_decode_in_the_smallest_graph_that_holds_the_fullest(measured: Any) -> None:
    """The first engine has 8 and then 4 of its 12 sequences, the second 7 and then none."""
    steps = [[(event["graphs"], event["others"]) for event in report["steps"]] for report in measured("dp2-ep2-graphs")]
    assert steps[0] == steps[1] and len(steps[0]) == 3
    for graphs, others in steps[0]:
        # A prefill gives the first of the 16 tokens.
        assert graphs == {"4": 15, "8": 15} and others >= 2
