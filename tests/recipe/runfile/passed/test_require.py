# SPDX-License-Identifier: Apache-2.0
"""Settings of verl 0.6.1, as people ask for them, against the real configuration in the synced sources."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recipe.runfile.config import load
from recipe.runfile.derive import derive_run
from recipe.runfile.errors import ConfigError
from recipe.runfile.passed import flattened, merged, parsed, taken_over
from recipe.runfile.passed.composed import require_composed
from recipe.runfile.passed.require import require_own, require_taken
from recipe.runfile.paths import upstream_dir

REPO = Path(__file__).resolve().parents[4]
SIM = REPO / "configs" / "sim.toml"
ACTOR, ROLLOUT = "actor_rollout_ref.actor.", "actor_rollout_ref.rollout."
TRANSFORMER = f"+{ACTOR}megatron.override_transformer_config."

TAKEN = [
    f"{ACTOR}use_dynamic_bsz=true",
    f"{ACTOR}ppo_max_token_len_per_gpu=4096",
    f"+{ACTOR}ppo_infer_max_token_len_per_gpu=8192",  # a field of verl's dataclass that its files leave out
    f"{ACTOR}clip_ratio_c=4",  # a whole number for a number
    f"{ACTOR}shuffle=true",
    f"{ACTOR}data_loader_seed=7",
    f"{ACTOR}policy_loss.clip_cov_ratio=0.1",
    f"{ACTOR}optim.lr_decay_style=cosine",
    f"{ACTOR}optim.betas=[0.9,0.95]",
    f"{ACTOR}optim.lr_decay_steps=null",
    f"{ACTOR}checkpoint.save_contents=[model,extra]",
    f"{TRANSFORMER}moe_z_loss_coeff=0.001",
    f"{TRANSFORMER}moe_token_dispatcher_type=alltoall",
    f"++{ACTOR}megatron.override_transformer_config.recompute_modules=[mlp]",  # there is one
    f"+{ACTOR}megatron.override_ddp_config.grad_reduce_in_fp32=true",
    f"+{ACTOR}optim.override_optimizer_config.adam_eps=1e-9",
    f"{ROLLOUT}dtype=float16",
    f"{ROLLOUT}disable_log_stats=false",
    f"{ROLLOUT}cudagraph_capture_sizes=[1,2,4]",
    f"+{ROLLOUT}engine_kwargs.vllm.swap_space=4",
    f"+{ROLLOUT}engine_kwargs.sglang.attention_backend=fa3",  # nothing is known of what stands there
    "+actor_rollout_ref.model.lora_rank=8",  # verl reads it, though it is in none of its files
    "algorithm.norm_adv_by_std_in_grpo=false",
    "algorithm.rollout_correction.rollout_rs=token",
    "algorithm.rollout_correction.rollout_token_veto_threshold=1e-4",
    "data.shuffle=false",
    "data.trust_remote_code=false",
    "+data.cache_dir=/cache",
    "+data.apply_chat_template_kwargs.enable_thinking=false",
    "+custom_reward_function.reward_kwargs.mine=1",
    "+reward_model.reward_kwargs={overlong_buffer_cfg:{enable:true,len:512}}",
    "+ray_kwargs.ray_init.log_to_driver=false",
    "global_profiler.profile_continuous_steps=true",
    "trainer.project_name=mine",  # ours by default
    "trainer.log_val_generations=8",
    "trainer.rollout_data_dir='/runs/a b'",
    "+trainer.val_only=true",
    "+trainer.wandb_proxy=http://proxy:3128",
]
NO_KEY = "verl's configuration has no "
REFUSED = {
    # Mistyped, or in another place: the nearest that is right.
    f"{ACTOR}use_dynamic_bs=true": f"{NO_KEY}{ACTOR}use_dynamic_bs; did you mean {ACTOR}use_dynamic_bsz?",
    "actor.use_dynamic_bsz=true": f"did you mean {ACTOR}use_dynamic_bsz?",
    "use_dynamic_bsz=true": f"did you mean {ACTOR}use_dynamic_bsz?",
    "trainer.log_val_generation=8": "did you mean trainer.log_val_generations?",
    "+trainer.val_onli=true": "did you mean trainer.val_only?",
    "+data.cache_dr=/cache": "did you mean data.cache_dir?",
    f"{TRANSFORMER}moe_z_los_coeff=1": "override_transformer_config.moe_z_loss_coeff?",
    f"+{ACTOR}megatron.override_ddp_config.overlap_grad=true": "override_ddp_config.overlap_grad_reduce?",
    f"+{ROLLOUT}engine_kwargs.vllm.swap_spce=4": "engine_kwargs.vllm.swap_space?",
    "+ray_kwargs.ray_init.log_to_drivr=false": "ray_kwargs.ray_init.log_to_driver?",
    "+totally.new=3": f"{NO_KEY}totally.new; expected one of its keys",
    # New where it is not, or not marked as new.
    "+trainer.critic_warmup=3": "in verl's configuration already; leave the + out",
    "trainer.val_only=true": "is new in verl's configuration; write it as +trainer.val_only",
    f"{ROLLOUT}engine_kwargs.vllm.swap_space=4": f"write it as +{ROLLOUT}engine_kwargs.vllm.swap_space",
    f"+{ACTOR}wholly_new=1": f"{NO_KEY}{ACTOR}wholly_new",
    f"+{ROLLOUT}engine_kwargs.vllm.dtype=float16": "by verl itself; leave it out",
    "+actor_rollout_ref.ref.megatron.override_transformer_config.moe_z_loss_coeff=1": f"takes over {ACTOR}megatron",
    "trainer.log_val_generations.x=3": f"{NO_KEY}trainer.log_val_generations.x",
    # Of another type.
    f"{ACTOR}ppo_max_token_len_per_gpu=4096.5": "is 4096.5 (a number); expected a whole number",
    f"{ACTOR}ppo_max_token_len_per_gpu='4096'": "is '4096' (text); expected a whole number",
    f"{ACTOR}shuffle=1": "is 1 (a whole number); expected true or false",
    f"{ACTOR}optim.betas=0.9": "expected a list",
    f"{TRANSFORMER}moe_z_loss_coeff=much": "is 'much' (text); expected a number or nothing (null)",
    "trainer.critic_warmup=null": "expected a whole number",
    f"{ACTOR}policy_loss=gspo": "is a table of verl's; give one of its keys: loss_mode, ",
    # Ours.
    f"{ACTOR}policy_loss.loss_mode=gspo": "follows from train.loss_mode of the run file; set that instead",
    "global_profiler.steps=[1,2]": "follows from profile.steps of the run file; set that instead",
    "trainer.logger=[console,tensorboard]": "trainer.logger follows from run.trackers of the run file",
    "trainer.n_gpus_per_node=8": "trainer.n_gpus_per_node follows from cluster.dies_per_node of the run file",
    f"++{ROLLOUT}max_num_seqs=3": "is worked out from cluster.dies_per_node, cluster.nodes, ",
    f"{ROLLOUT}enable_prefix_caching=true": "is set by the recipe, and no key of the run file changes it",
    "custom_reward_function.reward_kwargs.mix.format=1": "follows from reward.mix",
    # Unsafe.
    "actor_rollout_ref.model.trust_remote_code=true": "would run code out of the model's directory",
    f"+{ROLLOUT}engine_kwargs.vllm.hf_token=abc": "put it into a variable of the environment",
    "+trainer.wandb_proxy=http://u:secret@proxy": "an address with a password",
    # What Hydra could do, and a launch could not.
    "~trainer.critic_warmup": "give KEY=null instead of removing it",
    f"{ACTOR}shuffle=true,false": "asks for several runs, and a launch is one",
    "actor@actor_rollout_ref.actor=dp_actor": "names another file of verl's configuration",
    "hydra.verbose=true": "hydra's own settings are the launcher's",
    "trainer.project_name=${oc.env:HOME}": "expected text without ${",
    "--steps": "expected KEY=VALUE",
    "trainer.project_name=a b c]": "expected KEY=VALUE",
    "trainer.project_name='a\nb'": "expected text of one line",
    "algorithm.lam=1e999": "expected a finite number",
}


def check(item: str) -> None:
    settings = parsed([item])
    require_own(settings)
    require_taken(settings, upstream_dir())


def test_there_are_sixty() -> None:
    assert len(TAKEN) + len(REFUSED) >= 60


@pytest.mark.parametrize("item", TAKEN)
def test_verl_takes_it(item: str) -> None:
    check(item)


def test_hydra_takes_all_of_them_together() -> None:
    from omegaconf import OmegaConf

    from recipe.runfile.passed.composed import _compose

    overrides = taken_over(parsed(TAKEN))
    require_composed(upstream_dir(), overrides)
    config = _compose(upstream_dir(), tuple(overrides))
    for item in TAKEN:
        (key, value), *more = parsed([item]).items()
        found = OmegaConf.select(config, key.lstrip("+"))
        assert more or found == value, item


@pytest.mark.parametrize("item", REFUSED)
def test_it_is_refused_in_a_line_that_says_what_to_do(item: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(item)
    message = str(caught.value)
    assert REFUSED[item] in message and "\n" not in message and "secret@" not in message, message


def test_a_table_and_keys_with_dots_mean_the_same() -> None:
    dotted = {"actor_rollout_ref.actor.shuffle": True, "+trainer.val_only": True}
    nested = {"actor_rollout_ref": {"actor": {"shuffle": True}}, "+trainer": {"val_only": True}}
    assert flattened(dotted, "") == flattened(nested, "") == dotted
    with pytest.raises(ConfigError, match="shuffle is there twice"):
        flattened({**nested, "actor_rollout_ref.actor.shuffle": False}, "[verl] ")


def test_the_text_null_stands_for_what_toml_lacks() -> None:
    assert taken_over(flattened({"a": {"b": "null", "c": "nul"}}, "")) == ["a.b=null", "a.c=nul"]


@pytest.mark.parametrize("key", ["", "a..b", "a b", "-a", "a.+b", "+++a", "a@b", "1a"])
def test_what_cannot_be_a_key(key: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a key"):
        flattened({key: 1}, "")


def test_the_command_line_wins_over_the_table(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    table = '\n[verl]\n"trainer.log_val_generations" = 3\n"+trainer.val_only" = true\n'
    file.write_text(SIM.read_text() + table)
    config = load(file, ["trainer.log_val_generations=4", "++trainer.val_only=false", "trainer.log_val_generations=5"])
    assert config.verl == {"trainer.log_val_generations": 5, "++trainer.val_only": False}
    assert merged({"+a": 1, "b": 2}, {"a": 3}) == {"b": 2, "a": 3}
    overrides = derive_run(config).overrides
    assert overrides[-2:] == ["trainer.log_val_generations=5", "++trainer.val_only=false"]


def test_without_verls_sources_only_what_is_ours_is_refused(tmp_path: Path) -> None:
    config = load(SIM, ["no.such.key=1"])
    assert derive_run(config, upstream=tmp_path).passed == ["no.such.key=1"]
    with pytest.raises(ConfigError, match=r"follows from cluster\.nodes"):
        _ = derive_run(load(SIM, ["trainer.nnodes=3"]), upstream=tmp_path).passed


def test_nothing_heavy_is_imported() -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from recipe.runfile.config import load; from recipe.runfile.derive import derive_run\n"
        f"print(derive_run(load(Path({str(SIM)!r}), [{TAKEN[0]!r}])).passed)\n"
        "print({'torch', 'ray', 'verl', 'transformers', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.stdout == f"{[TAKEN[0]]}\nset()\n", done.stdout + done.stderr
