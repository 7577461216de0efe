# SPDX-License-Identifier: Apache-2.0
"""What is derived from a run file is accepted by the real verl 0.6.1: by Hydra, its dataclasses and its own checks."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.runfile.config import load
from recipe.runfile.derive import derive_run
from recipe.runfile.errors import ConfigError
from recipe.runfile.hydra import quote
from recipe.runfile.inherited import full_environment
from recipe.runfile.paths import RunPaths
from recipe.runfile.schema import ON_POLICY

REPO = Path(__file__).resolve().parents[3]
CONFIGS = sorted((REPO / "configs").glob("*.toml"))
SIM = next(path for path in CONFIGS if path.stem == "sim")
GPUS = next(path for path in CONFIGS if path.stem == "h20_128gpu_math_lighteval")
# A directory name with everything that Hydra's grammar could take for something else.
PATHS = RunPaths(Path("/runs/it's {a}, [b] = c"), "id", Path("/tmp/grpo-1"))

COMPOSE = """
import dataclasses, json, sys
from pathlib import Path
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
import verl
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.workers.config import McoreActorConfig, McoreEngineConfig, McoreOptimizerConfig, RolloutConfig
from verl.utils.megatron.optimizer import init_megatron_optim_config
from megatron.core.transformer.transformer_config import MLATransformerConfig

MINDSPEED = {"use_flash_attn", "use_fused_rmsnorm", "swap_optimizer", "pipeline_num_transformer_layers"}
OPTIMIZER = (
    "lr", "weight_decay", "clip_grad", "adam_beta1", "adam_beta2", "use_distributed_optimizer",
    "optimizer_cpu_offload", "optimizer_offload_fraction", "use_precision_aware_optimizer",
    "overlap_cpu_optimizer_d2h_h2d",
)
fields = {field.name for field in dataclasses.fields(MLATransformerConfig)}
answers = []
with initialize_config_dir(str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
    for overrides in json.load(sys.stdin):
        config = compose("ppo_megatron_trainer", overrides=overrides)
        validate_config(config, use_reference_policy=True, use_critic=False)
        assert isinstance(omega_conf_to_dataclass(config.actor_rollout_ref.rollout), RolloutConfig)
        actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
        assert isinstance(actor, McoreActorConfig) and isinstance(actor.megatron, McoreEngineConfig)
        assert isinstance(actor.optim, McoreOptimizerConfig) and actor.clip_ratio_high >= actor.clip_ratio_low
        transformer = OmegaConf.to_container(config.actor_rollout_ref.actor.megatron.override_transformer_config)
        # The rest is MindSpeed's: verl drops what nobody knows with a warning, and a run goes on without it.
        assert set(transformer) <= fields | MINDSPEED, set(transformer) - fields - MINDSPEED
        optimizer = init_megatron_optim_config(config.actor_rollout_ref.actor.optim)
        of_megatron = {"megatron_optimizer": {name: getattr(optimizer, name) for name in OPTIMIZER}}
        answers.append(OmegaConf.to_container(config, resolve=True) | of_megatron)
print("ANSWER" + json.dumps(answers))
"""


CHAT_TEMPLATE = REPO / "data" / "chat_template.jinja"
MIX = {"format": 0.2, "acc": 0.8}


def overrides_of(path: Path, **sections: dict[str, object]) -> list[str]:
    config = load(path)
    for name, changes in sections.items():
        config = dataclasses.replace(config, **{name: dataclasses.replace(getattr(config, name), **changes)})
    overrides = derive_run(config, paths=PATHS).overrides
    return [item for item in overrides if not item.startswith("hydra.")]


@pytest.fixture(scope="module")
def composed() -> dict[str, dict]:
    """The resolved verl configuration of every shipped run file, and of variants of the first."""
    asked = {path.stem: overrides_of(path) for path in CONFIGS}
    asked["vanilla"] = overrides_of(SIM, train={"loss_mode": "vanilla"})
    weighed = {"loss_mode": "vanilla", "importance_weights": "sequence", "importance_most": 3.0}
    asked["weighed"] = overrides_of(SIM, train=weighed)
    asked["mix"] = overrides_of(SIM, reward={"mix": MIX, "workers": 2, "tier3": "math_verify"})
    asked["host"] = overrides_of(GPUS, actor={"optimizer": "host", "optimizer_host_share": 0.75})
    asked["template"] = overrides_of(SIM, data={"chat_template": str(CHAT_TEMPLATE)}, reward={"refuse_copied": False})
    asked["nz"] = overrides_of(SIM, rollout={"graph_mode": True, "kv_nz": True})
    graph = {"graph_mode": True, "graph_sizes": [16, 4], "multistream_mla": True, "multistream_moe": True}
    asked["graphs"] = overrides_of(SIM, rollout=graph)
    asked["profile"] = overrides_of(SIM, profile={"steps": [3, 7], "ranks": [1], "shapes": True, "stacks": True})
    done = subprocess.run(
        [sys.executable, "-c", COMPOSE],
        input=json.dumps(list(asked.values())),
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = next(line for line in done.stdout.splitlines() if line.startswith("ANSWER"))
    return dict(zip(asked, json.loads(answer.removeprefix("ANSWER")), strict=True))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_verl_composes_every_run_file(composed: dict[str, dict], path: Path) -> None:
    config, layout = load(path), derive_run(load(path)).layout
    verl = composed[path.stem]
    actor, rollout = verl["actor_rollout_ref"]["actor"], verl["actor_rollout_ref"]["rollout"]
    assert verl["trainer"]["validation_data_dir"] == str(PATHS.validation)
    assert verl["trainer"]["n_gpus_per_node"] * verl["trainer"]["nnodes"] == layout.dies
    ray = verl["ray_kwargs"]["ray_init"]
    if config.simulated:
        assert ray["resources"]["NPU"] == config.cluster.dies_per_node
        assert (ray["address"], ray["_node_ip_address"]) == ("local", "127.0.0.1")
    else:  # an existing Ray is joined, which takes no sizes
        assert ray == {"num_cpus": None, "address": config.cluster.ray_address}
    assert actor["ppo_mini_batch_size"] * config.train.updates_per_step == verl["data"]["train_batch_size"]
    assert actor["use_kl_loss"] and rollout["calculate_log_probs"]
    assert rollout["max_model_len"] == verl["data"]["max_prompt_length"] + verl["data"]["max_response_length"]
    transformer = actor["megatron"]["override_transformer_config"]
    stages = config.actor.stage_layers
    assert transformer.get("num_layers_in_first_pipeline_stage", stages[0]) == stages[0]
    assert transformer.get("num_layers_in_last_pipeline_stage", stages[-1]) == stages[-1]
    # Megatron-core 0.12.1 divides the other layers by the number of stages that are not named: one must be left.
    named = [key for key in transformer if key.endswith("_pipeline_stage")]
    if layout.only_ends_differ:
        assert len(set(stages)) == 1 or 0 < len(named) < len(stages)
    else:  # the patches have the list from the environment
        assert not named
    # The reference policy is laid out as the actor.
    reference = verl["actor_rollout_ref"]["ref"]["megatron"]
    for key in ("pipeline_model_parallel_size", "expert_model_parallel_size", "dist_checkpointing_path"):
        assert reference[key] == actor["megatron"][key]
    assert reference["override_transformer_config"] == transformer


def test_the_on_policy_loss_passes_its_guard(composed: dict[str, dict]) -> None:
    from omegaconf import OmegaConf

    from verl_patches.trainer.ppo.on_policy import require_on_policy, selected

    vanilla = OmegaConf.create(composed["vanilla"])
    assert not selected(vanilla.actor_rollout_ref.actor) and not vanilla.algorithm.rollout_correction.bypass_mode
    for file in CONFIGS:
        config = OmegaConf.create(composed[file.stem])
        asked = load(file).train.loss_mode == ON_POLICY
        assert selected(config.actor_rollout_ref.actor) is asked
        if asked:
            require_on_policy(config)


def test_importance_weights_are_verls_own_configuration(composed: dict[str, dict]) -> None:
    from verl.trainer.config import RolloutCorrectionConfig

    stock, asked = (composed[name]["algorithm"]["rollout_correction"] for name in ("vanilla", "weighed"))
    assert stock["rollout_is"] is None and stock == asked | {"rollout_is": None, "rollout_is_threshold": 2.0}
    known = {name: value for name, value in asked.items() if name != "_target_"}
    assert RolloutCorrectionConfig(**known) == RolloutCorrectionConfig.decoupled_seq_is(threshold=3.0)


def test_a_profile_is_of_actor_and_reference(composed: dict[str, dict]) -> None:
    from verl.utils.profiler.config import NPUToolConfig

    stock, asked = composed["sim"]["global_profiler"], composed["profile"]["global_profiler"]
    assert stock["steps"] is None and stock["tool"] is None
    assert (asked["steps"], asked["tool"], asked["save_path"]) == ([3, 7], "npu", str(PATHS.profile))
    for role in ("actor", "ref", "rollout"):
        profiler = composed["profile"]["actor_rollout_ref"][role]["profiler"]
        assert (profiler["tool"], profiler["save_path"]) == ("npu", str(PATHS.profile))
        assert (profiler["enable"], profiler["ranks"]) == (True, [1])
        tool = {name: value for name, value in profiler["tool_config"]["npu"].items() if name != "_target_"}
        assert NPUToolConfig(**tool).contents == ["npu", "cpu", "shapes", "stack"]
        assert not composed["sim"]["actor_rollout_ref"][role]["profiler"]["enable"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_megatron_gets_the_optimizer_of_the_run_file(composed: dict[str, dict], path: Path) -> None:
    train, optimizer = load(path).train, composed[path.stem]["megatron_optimizer"]
    wanted = {
        "lr": train.learning_rate,
        "weight_decay": train.weight_decay,
        "clip_grad": train.max_gradient_norm,
        "adam_beta1": 0.9,
        "adam_beta2": train.adam_beta2,
    }
    assert {name: optimizer[name] for name in wanted} == wanted
    assert optimizer["use_distributed_optimizer"] and not optimizer["optimizer_cpu_offload"]


def test_megatron_keeps_the_optimizer_on_the_host(composed: dict[str, dict]) -> None:
    optimizer = composed["host"]["megatron_optimizer"]
    assert optimizer["optimizer_cpu_offload"] and optimizer["use_precision_aware_optimizer"]
    assert optimizer["optimizer_offload_fraction"] == 0.75 and not optimizer["overlap_cpu_optimizer_d2h_h2d"]
    # verl's own offload would move what is left on the die as well.
    assert composed["host"]["actor_rollout_ref"]["actor"]["megatron"]["optimizer_offload"] is False


def test_the_chat_template_reaches_verl_as_it_is_written(composed: dict[str, dict]) -> None:
    text = CHAT_TEMPLATE.read_text(encoding="utf-8")
    assert composed["template"]["data"]["apply_chat_template_kwargs"] == {"chat_template": text}
    assert composed["template"]["actor_rollout_ref"]["model"]["custom_chat_template"] == text
    assert composed[SIM.stem]["data"]["apply_chat_template_kwargs"] == {}
    assert composed[SIM.stem]["actor_rollout_ref"]["model"]["custom_chat_template"] is None


def test_copied_work_is_paid_when_the_run_file_says_so(composed: dict[str, dict]) -> None:
    assert composed["template"]["custom_reward_function"]["reward_kwargs"]["refuse_copied"] is False
    assert "refuse_copied" not in composed[SIM.stem]["custom_reward_function"]["reward_kwargs"]


def test_the_nz_cache_reaches_vllm_ascend(composed: dict[str, dict]) -> None:
    rollout = composed["nz"]["actor_rollout_ref"]["rollout"]
    assert rollout["enforce_eager"] is False and rollout["enable_prefix_caching"] is False
    asked = rollout["engine_kwargs"]["vllm"]["additional_config"]
    assert asked == {"torchair_graph_config": {"enable_kv_nz": True}}


def test_graph_sizes_and_streams_reach_vllm_ascends_own_configuration(composed: dict[str, dict]) -> None:
    import vllm_ascend.worker.model_runner_v1  # noqa: F401  in another order the package imports itself in a circle
    from vllm_ascend.ascend_config import TorchairGraphConfig

    asked = composed["graphs"]["actor_rollout_ref"]["rollout"]["engine_kwargs"]["vllm"]["additional_config"]
    config = TorchairGraphConfig({"enabled": True, **asked["torchair_graph_config"]})
    assert config.graph_batch_sizes == [4, 16] and config.enable_multistream_mla and config.enable_multistream_moe
    assert "engine_kwargs" not in composed["nz"] and not config.enable_kv_nz


def test_the_reward_function_is_there(composed: dict[str, dict]) -> None:
    for name, manager, asked in (
        ("sim", "naive", {"verifier": "r1_zero"}),
        ("mix", "batch", {"verifier": "r1_zero", "mix": MIX, "workers": 2, "tier3": "math_verify"}),
    ):
        reward = composed[name]["custom_reward_function"]
        assert f"def {reward['name']}(" in Path(reward["path"]).read_text(encoding="utf-8")
        assert reward["reward_kwargs"] == asked and composed[name]["reward_model"]["reward_manager"] == manager


@given(st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable()))
def test_quoted_text_comes_back_from_hydra_unchanged(text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides([f"key={quote(text)}"])
    assert override.value() == text


@pytest.mark.parametrize(
    "value", [None, True, 3, 3e-4, -1.5, ["console", "file"], {"a": [1, None]}, "1e3", "null", "nan"]
)
def test_quoted_values_come_back_from_hydra_unchanged(value: object) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides([f"key={quote(value)}"])
    assert override.value() == value
    assert type(override.value()) is type(value)


def test_the_environment_drops_what_another_job_left() -> None:
    config = load(SIM)
    derived = derive_run(config, paths=PATHS).environment
    left = {"VLLM_DP_SIZE": "64", "RAY_ADDRESS": "10.0.0.1:6379", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "HOME": "/root"}
    environment = full_environment(derived, left)
    assert environment["VLLM_DP_SIZE"] == "2"
    assert "RAY_ADDRESS" not in environment and "TORCH_DEVICE_BACKEND_AUTOLOAD" not in environment
    assert environment["HOME"] == "/root"


def test_the_path_keeps_what_cann_has_put_there_behind_ours_and_nothing_else() -> None:
    config = load(SIM)
    derived = derive_run(config, paths=PATHS).environment
    home = "/usr/local/Ascend/ascend-toolkit/latest"
    theirs = [f"{home}/python/site-packages", f"{home}/opp/built-in/op_impl/ai_core/tbe"]
    left = {"PYTHONPATH": ":".join([*theirs, "/home/me/lib", ""])}
    assert full_environment(derived, left)["PYTHONPATH"] == derived["PYTHONPATH"]
    environment = full_environment(derived, {**left, "ASCEND_TOOLKIT_HOME": home})
    assert environment["PYTHONPATH"].split(":") == [*derived["PYTHONPATH"].split(":"), *theirs]


def through_verl(texts: list[str]) -> list[object]:
    """What is left of values of the command line after verl's own passes over its configuration."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "config.yaml").write_text("here: {there: null}\n", encoding="utf-8")
        with initialize_config_dir(directory, version_base=None):
            config = compose("config", overrides=[f"here.there={quote(texts)}"])
    seen = [OmegaConf.to_container(config), OmegaConf.to_container(config, resolve=True)]
    OmegaConf.resolve(config)
    seen.append(OmegaConf.to_container(config, resolve=True))
    resolved = OmegaConf.create(seen[-1])
    OmegaConf.resolve(resolved)
    seen.append(OmegaConf.to_container(resolved, resolve=True))
    assert all(resolved_once == seen[0] for resolved_once in seen)
    values = seen[0]["here"]["there"]  # type: ignore[index, call-overload]
    assert isinstance(values, list)
    return values


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"])) | st.text("$\\{}'\",=~[]() :#&*!|%@/.-1eE0xnull")


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS.filter(lambda text: "${" not in text), min_size=1, max_size=8))
def test_every_text_arrives_as_it_was_written(texts: list[str]) -> None:
    assert through_verl(texts) == texts


ODD = ["~/x", "a,b", "k=v", "$HOME", "$ {x}", "{$}", "it's", "\\", "\\'", "null", "1e5", "", " x "]


@pytest.mark.parametrize("text", ODD)
def test_texts_that_mean_something_elsewhere(text: str) -> None:
    assert through_verl([text, "between", text]) == [text, "between", text]


@pytest.mark.parametrize("text", ["/x/${oc.env:HOME}", "\\${data.seed}", "$${", "${"])
def test_what_verl_would_replace_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"verl's configuration would put something in the place of \$\{\.\.\.\}"):
        quote(["fine", text])


def test_a_directory_for_runs_that_verl_would_replace_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from recipe.runfile.derive import derive_run

    monkeypatch.setenv("RECIPE_RUNS", "/runs/${oc.env:HOME}")
    with pytest.raises(ConfigError, match="expected text without"):
        derive_run(load(SIM)).complete()


def test_show_prints_environment_and_overrides() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "recipe", "show", str(SIM), "--steps", "7"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=SIM.parents[1],
    )
    assert "VLLM_DP_SIZE=2" in done.stdout.splitlines()
    assert "trainer.total_training_steps=7" in done.stdout.splitlines()
