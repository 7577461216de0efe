# SPDX-License-Identifier: Apache-2.0
"""docs/CONFIG.md, made from the sections of the run file in `recipe.runfile.schema`."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from typing import Any

from recipe.runfile import schema
from recipe.runfile.typed_toml import REQUIRED, describe

_INTRO = """# The run file

[Chinese](zh/CONFIG.md) (the introduction, and how to read the tables)

One TOML file describes one run: `configs/*.toml` are complete ones, with comments. Everything that follows from these
values is derived and never typed: `python -m recipe show RUN.toml` prints it, `--json` with every size by its name,
`--shell` as a script that sets the environment and starts verl. An unknown key, a value of another type or beyond its
limits, and keys that contradict each other are errors with one line (exit code 2). Where a key names no upper limit it
is 2,147,483,647 for a whole number and 1e12 for any other. Values of `[environment]` whose names say secret
(`WANDB_API_KEY`, `HF_TOKEN`, ...) reach the run's processes, and are `(hidden)` in everything that is written or shown.

This page is made from the program: `python -m recipe show --keys > docs/CONFIG.md`; a test compares.

## What is derived
Dies are `nodes x dies_per_node`; sequences are answers with their prompts.

| value | from |
|---|---|
| engines of the rollout | dies / `rollout.tensor_parallel` |
| `VLLM_DP_SIZE` | engines / `rollout.instances` |
| dies over which an instance spreads the experts | `VLLM_DP_SIZE` x `rollout.tensor_parallel` |
| sequences of a step | `train.prompts_per_step` x `rollout.samples_per_prompt` |
| `rollout.max_num_seqs`, and the size of the compiled graph | sequences of a step / engines |
| `rollout.max_model_len` | `data.max_prompt_tokens` + `data.max_response_tokens` |
| chunked prefill of the Ascend scheduler | on where `rollout.max_batched_tokens` < `max_model_len` |
| pipeline stages of the actor | the length of `actor.stage_layers` |
| data parallel ranks of the actor | dies / (stages x `actor.tensor_parallel`) |
| copies of each expert in the actor (its expert data parallel size) | dies / (stages x `actor.expert_parallel`) |
| `actor.ppo_mini_batch_size` | `train.prompts_per_step` / `train.updates_per_step` |
| `actor.ppo_micro_batch_size_per_gpu` | the largest divisor of a rank's sequences within `actor.micro_batch_tokens` |
| `*.log_prob_micro_batch_size_per_gpu` | the same within `actor.log_prob_micro_batch_tokens` |
| `num_layers_in_first_pipeline_stage`, `..._last_...` | the ends of `actor.stage_layers`, where stages differ |
| `pipeline_num_transformer_layers` (MindSpeed) | `actor.stage_layers`, where stages differ |
| `moe_router_num_groups`, `moe_router_group_topk` | `n_group` and `topk_group` of the model |
| `bias_activation_fusion` | on in models without experts too, as verl has it in those with experts |
| `moe_router_dtype` | float32 on NPUs, which multiply no float64; on GPUs verl's float64, or by `actor.moe_profile` |
| `use_flash_attn`, and `multi_latent_attention` or `use_fused_rmsnorm` | with MindSpeed: on NPUs always |
| `rollout_correction.bypass_mode` | on with `train.loss_mode = "npu_on_policy"` |
| variables of the environment | `cluster.device`: those of CANN and HCCL on NPUs only |

Always off, and not to be set: prefix caching (weights change between steps), `trust_remote_code`, dashboards on other
addresses than 127.0.0.1.

## Keys
A key without a default has to be there. Units are in the names; a number without one is a count. *Gives* names what
follows directly: settings of verl without their leading `actor_rollout_ref.`, entries of
`override_transformer_config` by their own name, and variables of the environment.

*On resume* says what another value means to a run that goes on from a checkpoint. free: it is the same run; changes:
from there on it is another one, and each such key has to be accepted by its name; impossible: the checkpoint is of
another model. [LAUNCH.md](LAUNCH.md#going-on-after-an-end) has more.
"""


def page() -> str:
    """The text of docs/CONFIG.md."""
    parts = [_INTRO]
    for name, hint in typing.get_type_hints(schema.RunConfig).items():
        table = isinstance(hint, type) and dataclasses.is_dataclass(hint)
        parts.append(_section(name, hint) if table else _free_section(name))
    return "\n".join(parts)


_HEAD = ("| key | type | default | meaning | on resume | gives |", "|---|---|---|---|---|---|")


def _section(name: str, cls: type[Any]) -> str:
    lines = [f"### [{name}]", _about(cls), "", *_HEAD]
    return "\n".join([*lines, *_rows(cls, "")]) + "\n"


def _rows(cls: type[Any], prefix: str) -> list[str]:
    hints = typing.get_type_hints(cls)
    rows: list[str] = []
    for field in dataclasses.fields(cls):
        about, hint = field.metadata, hints[field.name]
        inner = next((option for option in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(option)), None)
        kind = "table" if inner else describe(hint)
        unit = f", {about['unit']}" if about["unit"] else ""
        if (limits := _limits(about)) and inner is None:
            kind = f"{kind}{unit}, {limits}"
        else:
            kind += unit
        gives = ", ".join(f"`{name}`" for name in about["gives"].split(", ") if name)
        cells = (f"`{prefix}{field.name}`", kind, _default(field), about["meaning"], _on_resume(field, inner), gives)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        if inner is not None:
            rows += _rows(typing.cast(type[Any], inner), f"{prefix}{field.name}.")
    return rows


def _limits(about: Any) -> str:
    if about["choices"]:
        return " or ".join(f'`"{choice}"`' for choice in about["choices"])
    least, most = about["least"], about["most"]
    if least is not None and most is not None:
        return f"{least} to {most}"
    return f"at least {least}" if least is not None else ""


def _on_resume(field: dataclasses.Field[Any], table: Any) -> str:
    """What a resume may change of this key; for a table its own keys say so."""
    return "" if table else str(field.metadata["on_resume"])


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is REQUIRED and field.default_factory is REQUIRED:
        return ""
    value = field.default if field.default_factory is REQUIRED else field.default_factory()
    if value is None or value in ({}, []):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _free_section(name: str) -> str:
    about = next(field for field in dataclasses.fields(schema.RunConfig) if field.name == name).metadata
    what = "Name = text" if name == "environment" else "Key = value"
    return f"### [{name}]\n{what}: {about['meaning']}. On resume: {about['on_resume']}.\n"


def _about(cls: type[Any]) -> str:
    return inspect.cleandoc(cls.__doc__ or "")
