# SPDX-License-Identifier: Apache-2.0
"""C, L, T, V, M: each check passes on a run that is right, and finds what was spoilt in it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from recipe.checks.catalogue import every_check
from recipe.models.architecture import LatentArchitecture
from recipe.preflight import run_file
from recipe.runfile.paths import upstream_dir
from recipe.runfile.schema import Recompute, Reward

# id -> (the run that is right, what is spoilt in it, level, part of what is said)
TRIPS = {
    "L001": ("cluster", {"actor_stage_layers": [6, 0, 7]}, "error", "[actor] stage_layers[1] is 0"),
    "L003": ("cluster", {"actor_stage_layers": [20, 21, 20]}, "error", "is 3, which does not divide the dies (256)"),
    "L004": ("cluster", {"actor_expert_parallel": 64}, "error", "[actor] expert_parallel is 64"),
    "L005": ("cluster", {"rollout_tensor_parallel": 3}, "error", "[rollout] tensor_parallel is 3"),
    "L006": ("cluster", {"rollout_instances": 3}, "error", "[rollout] instances is 3"),
    "L007": ("cluster", {"train_prompts_per_step": 500}, "error", "the rollout's engines is 128"),
    "L008": ("cluster", {"train_prompts_per_step": 511}, "error", "the actor's data parallel size is 32"),
    "L009": ("cluster", {"train_updates_per_step": 512}, "error", "the sequences of an update (16)"),
    "L010": ("cluster", {"actor_stage_layers": [6, 8, 8, 8, 8, 8, 8, 6]}, "error", "sum to 60"),
    "L011": ("cluster", {"actor_expert_parallel": 48}, "error", "256 experts for expert_parallel = 48"),
    "L012": (
        "cluster",
        {"cluster_nodes": 24, "train_prompts_per_step": 576, "actor_expert_parallel": 16},
        "error",
        "256 experts over the 384 dies",
    ),
    "L018": ("cluster", {"actor_expert_parallel": 1}, "error", "expert_parallel = 1 for 256 experts"),
    "L019": ("cuda", {"rollout_instances": 1}, "error", "[rollout] instances = 1 for 128 engines"),
    "L013": ("cluster", {"actor_tensor_parallel": 4}, "error", "tensor_parallel = 4 with MindSpeed"),
    "L014": ("cluster", {"rollout_tensor_parallel": 256}, "error", "128 heads for [rollout] tensor_parallel = 256"),
    "L015": ("cluster", {"rollout_tensor_parallel": 32}, "warning", "tensor_parallel = 32 on nodes of 16 dies"),
    "L016": ("cluster", {"cluster_dies_per_node": 8}, "warning", "16, as such nodes have"),
    "L017": ("cluster", {"actor_stage_layers": [7, 7, 7, 7, 7, 7, 7, 12]}, "warning", "ends that are not longer"),
    "C003": ("cluster", {"cluster_head": "127.0.0.1"}, "error", "[cluster] head = 127.0.0.1 for 16 nodes"),
    "T014": ("even", {"actor_log_prob_micro_batch_tokens": 12288}, "warning", "of 4 sequences at a time, updates of 1"),
    "T015": ("cluster", {"cluster_collective_timeout_s": 600}, "warning", "2198 s or more"),
    "T001": (
        "cluster",
        {"train_loss_mode": "npu_on_policy", "train_updates_per_step": 2},
        "error",
        "updates_per_step = 2",
    ),
    "T002": ("cluster", {"train_updates_per_step": 3}, "error", "updates_per_step is 3"),
    "T003": ("cluster", {"rollout_samples_per_prompt": 1}, "error", "samples_per_prompt = 1"),
    "T004": ("host", {"actor_optimizer_host_share": 0.5}, "error", "optimizer_host_share = 0.5 with device npu"),
    "T013": ("host", {"environment": {}}, "warning", "20, with the 320 cores here"),
    "T016": ("cluster", {"train_warmup_steps": 70}, "error", "wants it below [run] steps (70)"),
    "T005": ("cluster", {"cluster_device": "cuda"}, "error", 'optimizer = "swapped" with device cuda'),
    "T006": ("cluster", {"actor_micro_batch_tokens": 3000}, "warning", "micro_batch_tokens = 3000"),
    "T007": ("cluster", {"train_learning_rate": 1e-4}, "warning", "learning_rate = 0.0001"),
    "T008": ("cluster", {"train_clip_ratio": 0.0}, "error", "clip_ratio = 0.0"),
    "T009": (
        "cluster",
        {"actor_recompute": Recompute(granularity="full", method="uniform", layers=8)},
        "error",
        "of 6",
    ),
    "T010": ("cluster", {"run_save_every": 100}, "warning", "save_every = 100 in a run of 70"),
    "T011": ("cluster", {"run_step_deadline_s": 600}, "warning", "step_deadline_s = 600"),
    "T018": ("cluster", {"train_routing_replay": "rollout"}, "warning", "with compiled graphs, which no NPU has run"),
    "V001": ("cluster", {"data_max_response_tokens": 200_000}, "error", "201024 tokens of prompt and response"),
    "V002": ("cluster", {"rollout_max_batched_tokens": 32}, "error", "max_batched_tokens = 32 for 64 sequences"),
    "V004": ("cluster", {"rollout_max_batched_tokens": 512}, "warning", "max_batched_tokens = 512"),
    "V005": ("cluster", {"rollout_max_batched_tokens": 62}, "error", "a graph for 64 sequences"),
    "V006": ("cluster", {"rollout_graph_mode": False}, "warning", "graph_mode = false"),
    "V007": ("cluster", {"rollout_top_p": 0.9}, "warning", "top_p = 0.9 with"),
    "V008": ("cluster", {"rollout_temperature": 0.01}, "warning", "temperature = 0.01"),
    "V009": ("cluster", {"rollout_ignore_eos": True}, "warning", "ignore_eos"),
    "V010": ("cluster", {"rollout_memory_share": 0.98}, "error", "memory_share = 0.98"),
    "V011": ("cluster", {"run_validate_every": 100}, "warning", "validate_every = 100"),
    "V012": ("cluster", {"cluster_head": "192.0.2.1"}, "error", "192.0.2.1"),
    "V013": ("cluster", {"rollout_tensor_parallel": 8}, "error", "128 heads over [rollout] tensor_parallel = 8 dies"),
    "V016": (
        "cluster",
        {"model_architecture": "qwen3_30b_a3b", "rollout_graph_mode": True},
        "error",
        "graph_mode for a model with grouped-query attention",
    ),
    "V014": ("legal", {"model_sizes": "smallest"}, "error", "[simulator] strict = true"),
    "V015": (
        "cluster",
        {"cluster_hardware": "a2_64", "cluster_nodes": 32, "cluster_dies_per_node": 8},
        "error",
        "spread over 256 dies; fewer than 16 of an A2, or 16, 32 or 64",
    ),
    "E001": ("cuda", {"environment": {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}}, "error", "sleep mode"),
    "E015": ("cluster", {"environment": {"VLLM_DP_SIZE": "64"}}, "error", "[environment] VLLM_DP_SIZE"),
    "M001": ("cluster", {"cluster_hbm_gib_per_die": 30.0}, "error", "GiB on a die of stage"),
    "M002": ("cluster", {"rollout_memory_share": 0.1}, "error", "room for 0 tokens"),
    "M003": ("cluster", {"rollout_memory_share": 0.6}, "warning", "sequences at their longest"),
    "M004": ("cluster", {"cluster_host_memory_gib_per_node": 100.0}, "error", "GiB on a node"),
    "N017": ("cluster", {"model_path": "models/v3"}, "error", "[model] path = models/v3"),
    "D014": ("cluster", {"reward": Reward(mix={"acc": 1.0, "format": 0.0})}, "warning", "[reward] mix.format = 0.0"),
    "D004": ("laptop", {"data_template": "r1"}, "error", "unknown template 'r1'"),
}


@pytest.fixture
def cuda(cluster: Any) -> Any:
    cluster.set(cluster_device="cuda", actor_optimizer="offloaded", rollout_instances=128)
    return cluster


@pytest.fixture
def even(cluster: Any) -> Any:
    cluster.set(actor_log_prob_micro_batch_tokens=None, train_loss_mode="vanilla")
    return cluster


@pytest.fixture
def host(cluster: Any) -> Any:
    cluster.set(actor_optimizer="host", actor_optimizer_host_share=1.0, environment={"OMP_NUM_THREADS": "20"})
    return cluster


@pytest.mark.parametrize("id", TRIPS)
def test_a_spoilt_value_is_found_and_a_right_one_is_not(id: str, request: pytest.FixtureRequest) -> None:
    base, values, level, said = TRIPS[id]
    world = request.getfixturevalue(base)
    assert world.findings(id) == []
    world.set(**values)
    findings = world.findings(id)
    assert findings and {finding.level for finding in findings} == {level}
    assert any(said in f"{finding.found}; {finding.expected}" for finding in findings), findings
    assert all(finding.expected and finding.fix for finding in findings)


def test_c001_a_file_that_is_no_run_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[run]\nstepz = 1\n")
    report = run_file(file)
    assert [finding.id for finding in report.findings] == ["C001"] and report.exit_code == 2
    assert "did you mean 'steps'" in report.lines()[0]


def test_c005_preflight_says_that_gpus_were_never_tried(cluster: Any, laptop: Any) -> None:
    assert cluster.findings("C005") is laptop.findings("C005") is None
    cluster.set(cluster_device="cuda", cluster_hardware="h20_96", cluster_dies_per_node=8)
    (finding,) = cluster.findings("C005")
    assert finding.level == "not run" and "on GPUs nothing was ever started" in finding.line


def test_m001_and_m002_a_simulated_die_that_is_too_small_is_a_warning(laptop: Any) -> None:
    assert laptop.findings("M001") == laptop.findings("M002") == []
    laptop.set(simulator_hbm_mib=30)
    for id in ("M001", "M002"):
        assert {finding.level for finding in laptop.findings(id)} == {"warning"}
    assert "30.0 MiB" in laptop.findings("M001")[0].expected
    laptop.set(data_kind="json", data_path="/x.json")  # pads to its longest prompt, which is not known yet
    assert laptop.findings("M001") is None


def test_v003_the_nz_layout_and_prompts_in_pieces(cluster: Any) -> None:
    cluster.set(rollout_kv_nz=True, rollout_max_batched_tokens=3072)
    assert cluster.findings("V003") == []
    cluster.set(rollout_max_batched_tokens=3071)
    assert [finding.level for finding in cluster.findings("V003")] == ["error"]


def test_v005_graph_sizes_that_no_batch_of_an_engine_has(cluster: Any) -> None:
    cluster.set(rollout_graph_sizes=[8, 64])
    assert cluster.findings("V005") == []
    cluster.set(rollout_graph_sizes=[7, 128])
    assert [(finding.level, finding.found.split(",")[0]) for finding in cluster.findings("V005")] == [
        ("error", "graph_sizes has 7"),
        ("error", "graph_sizes has 128"),
    ]


def test_l013_multi_latent_attention_with_tensor_parallelism_is_mindspeeds_to_refuse(laptop: Any) -> None:
    laptop.set(actor_tensor_parallel=2)
    assert laptop.findings("L013") == []
    (laptop.upstream / "mindspeed").mkdir()
    assert [finding.level for finding in laptop.findings("L013")] == ["error"]


def test_l013_on_gpus_it_is_a_warning(cuda: Any) -> None:
    assert cuda.findings("L013") == []
    cuda.set(actor_tensor_parallel=2)
    assert [finding.level for finding in cuda.findings("L013")] == ["warning"]


def test_l020_a_tensor_that_cannot_be_cut_as_both_engines_ask(files: Any, cluster: Any) -> None:
    files.set(rollout_direct_sync=False)
    assert files.findings("L020") is None
    files.set(rollout_direct_sync=True, rollout_tensor_parallel=2)
    assert files.findings("L020") == []
    config = Path(files.config.model.path) / "config.json"
    files.edit_json(config, intermediate_size=129)
    found = files.findings("L020")
    assert "mlp.gate_proj.weight: 129 along axis 0 cannot be cut over the rollout's tensor parallel 2" in found[0].found
    assert cluster.findings("L020") == []
    cluster.set(cluster_device="cuda", actor_optimizer="offloaded", rollout_instances=128)
    assert cluster.findings("L020") is None


def test_l016_the_dies_that_a_node_has_are_its_dies(cluster: Any) -> None:
    cluster.set(cluster_dies_per_node=8)
    cluster.set_machine(dies=8)  # of a part of the node
    assert cluster.findings("L016") == []
    cluster.node = False
    assert "dies_per_node = 8 with hardware a3_128" in cluster.findings("L016")[0].found
    for device, hardware in (("npu", "a2_64"), ("cuda", "h20_96")):
        cluster.set(cluster_device=device, cluster_hardware=hardware, cluster_dies_per_node=8)
        assert cluster.findings("L016") == []
        cluster.set(cluster_dies_per_node=4)
        assert "8, as such nodes have" in cluster.findings("L016")[0].expected
    cluster.set(cluster_hardware="custom")
    assert cluster.findings("L016") is None


def test_t014_the_on_policy_loss_has_no_such_pass(cluster: Any) -> None:
    assert cluster.findings("T014") is None
    cluster.set(train_loss_mode="vanilla")
    assert cluster.findings("T014")


def test_t015_a_smaller_model_on_fewer_dies_needs_less(cluster: Any) -> None:
    def wanted() -> int:
        cluster.set(cluster_collective_timeout_s=120)
        return int(cluster.findings("T015")[0].expected.split(" s")[0])

    whole = wanted()
    cluster.set(model_kind="random_init")
    without_weights = wanted()
    cluster.set(cluster_nodes=8, train_prompts_per_step=256, actor_expert_parallel=16)
    assert whole > without_weights == 600 + 256 > wanted() == 600 + 128
    cluster.set(model_kind="path", cluster_nodes=256)
    assert wanted() == 3600


def test_c003_simulated_nodes_may_share_a_machine_and_name_a_head_all_the_same(laptop: Any) -> None:
    assert laptop.findings("C003") is None
    laptop.set(cluster_nodes=2)
    assert "no [cluster] head for 2 nodes" in laptop.findings("C003")[0].found
    laptop.set(cluster_head="127.0.0.1")
    assert laptop.findings("C003") == []


def test_d007_a_reward_without_its_function(cluster: Any) -> None:
    assert cluster.findings("D007") == []
    (cluster.root / "reward.py").write_text("def compute_score(): ...\n")
    cluster.repo = cluster.root
    cluster.config = cluster.config.__class__(
        **{**vars(cluster.config), "reward": cluster.config.reward.__class__(path="reward.py", workers=2)}
    )
    assert "no function compute_scores" in cluster.findings("D007")[0].found


def test_what_does_not_work_out_is_said_by_the_checks_that_need_it(cluster: Any) -> None:
    cluster.set(rollout_tensor_parallel=3)
    for id in ("V002", "L012", "M001"):
        (finding,) = cluster.findings(id)
        assert finding.level == "not run" and "the L findings" in finding.found


def test_t012_a_launcher_that_tells_megatron_nothing_of_the_groups(cluster: Any, monkeypatch: Any) -> None:
    assert cluster.findings("T012") == []
    monkeypatch.setattr(LatentArchitecture, "transformer_overrides", {})
    assert "Megatron-core is told" in cluster.findings("T012")[0].found


def test_t017_a_launcher_that_leaves_the_router_to_verl(cluster: Any, monkeypatch: Any) -> None:
    from recipe.runfile.schema import RunConfig

    assert cluster.findings("T017") == []
    monkeypatch.setattr(RunConfig, "router_type", "fp64")
    assert "moe_router_dtype = fp64" in cluster.findings("T017")[0].found


def test_c002_what_no_other_check_has_seen_coming(cluster: Any) -> None:
    assert cluster.findings("C002") == []
    cluster.set(cluster_dashboard_port=cluster.config.cluster.ray_port)
    assert "move one of them" in cluster.findings("C002")[0].found


@pytest.mark.parametrize("id", ["D004", "E015", "L013", "T005"])
def test_c002_leaves_it_to_the_checks_that_say_why_nothing_can_be_derived(
    id: str, request: pytest.FixtureRequest
) -> None:
    base, values, _, _ = TRIPS[id]
    world = request.getfixturevalue(base)
    assert world.findings("C002") == []
    world.set(**values)
    (finding,) = world.findings("C002")
    ids = [check.id for check in every_check() if check.stops_derivation]
    assert finding.level == "not run" and finding.found == f"first what {', '.join(ids)} found must be put right"
    assert id in ids


def test_c004_settings_that_verl_does_not_take(laptop: Any) -> None:
    assert laptop.findings("C004") is None
    laptop.upstream = upstream_dir()
    laptop.config = dataclasses.replace(laptop.config, verl={"trainer.log_val_generations": 4})
    assert laptop.findings("C004") == [] and laptop.findings("C002") == []
    laptop.config = dataclasses.replace(laptop.config, verl={"trainer.log_val_generation": 4})
    (finding,) = laptop.findings("C004")
    assert finding.level == "error" and "did you mean trainer.log_val_generations?" in finding.found
    assert [finding.level for finding in laptop.findings("C002")] == ["not run"]


def test_c004_waits_for_the_sources(laptop: Any) -> None:
    laptop.config = dataclasses.replace(laptop.config, verl={"trainer.log_val_generation": 4})
    (finding,) = laptop.findings("C004")
    assert finding.level == "not run" and finding.found.endswith("run: python -m recipe sync")
    laptop.config = dataclasses.replace(laptop.config, verl={"trainer.nnodes": 4})
    assert "follows from cluster.nodes" in laptop.findings("C004")[0].found
