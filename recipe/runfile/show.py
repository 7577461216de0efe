# SPDX-License-Identifier: Apache-2.0
"""What is derived from a run file, for people, for a shell, and as JSON."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

from recipe.runfile.derive import Derived
from recipe.runfile.engines import compiled_sizes, graph_options
from recipe.runfile.inherited import FOREIGN_NAMES, FOREIGN_PREFIXES
from recipe.runfile.masking import is_secret, masked
from recipe.runfile.overrides import DRIVER
from recipe.runfile.passed.require import can_be_checked
from recipe.runfile.schema import CUDA, NPU, RunConfig
from recipe.text import printable
from verl_patches.workers.rollout.vllm_rollout.engine_args import has_experts, npu_engine_args


def as_text(derived: Derived) -> str:
    """A page to read: sizes first, then one setting per line."""
    lines = ["# sizes", *_sizes(derived), "# environment of every process"]
    lines += [f"{name}={value}" for name, value in sorted(masked(derived.environment).items())]
    lines += _interface_note(derived.config)
    own = derived.overrides[: len(derived.overrides) - len(derived.passed)]
    lines += ["# python " + " ".join(DRIVER), *own]
    if derived.passed:
        unchecked = "" if can_be_checked(derived.upstream) else "; not checked: first run python -m recipe sync"
        lines += [f"# settings of verl, as given{unchecked}", *derived.passed]
    return "\n".join(map(printable, lines))


def as_json(derived: Derived) -> dict[str, Any]:
    """The same as JSON, every size by its name; the values of the run file are under `config`."""
    sizes = dataclasses.asdict(derived.layout) | {
        "longest_sequence_tokens": derived.sequence_tokens,
        "hbm_bytes_per_die": derived.config.hbm_bytes_per_die,
    }
    return {
        "config": derived.config.described(),
        "layout": sizes,
        "vllm": _engine(derived),
        "environment": masked(derived.environment),
        "arguments": derived.arguments,
    }


PATH = "PYTHONPATH"
# Not exported as it is: the path is put together by the script, and a temporary directory is made by a launch only.
OWN = (PATH, "TMPDIR")


def as_shell(derived: Derived) -> str:
    """A bash script: the environment made as at launch, and the driver started in it.

    Variables left over from other jobs are unset first, as the launcher does. Secret values are not in it: it takes
    them from the environment it is started in, and stops where they are not set.
    """
    secrets = sorted(name for name, value in derived.config.environment.items() if is_secret(name, value))
    prefixes = " ".join(f'"${{!{prefix}@}}"' for prefix in FOREIGN_PREFIXES)
    ours = shlex.quote(derived.environment[PATH])
    values = {name: shlex.quote(value) for name, value in derived.environment.items() if name not in OWN}
    values |= {name: f'"$given_{name}"' for name in secrets}
    lines = [
        "#!/usr/bin/env bash",
        f"# {printable(derived.config.run.name)}: what python -m recipe launch makes of the run file.",
        *(f'given_{name}="${{{name}:?is not set; its value is secret and is not in this script}}"' for name in secrets),
        f"unset -v {prefixes} {' '.join(FOREIGN_NAMES)}",
        *(f"export {name}={text}" for name, text in sorted(values.items())),
        "# CANN's own packages stay on the path, behind ours.",
        'home="${ASCEND_TOOLKIT_HOME:-${ASCEND_HOME_PATH:-/dev/null}}" theirs=""',
        "while IFS= read -r -d : entry; do",
        '  [[ "$entry" != "${home%/}/"* ]] || theirs+=":$entry"',
        'done <<<"${PYTHONPATH:-}:"',
        f'export {PATH}={ours}"$theirs"',
        *_interface_note(derived.config),
        "python " + " \\\n  ".join(shlex.quote(argument) for argument in derived.arguments),
    ]
    return "\n".join(lines)


def _interface_note(config: RunConfig) -> list[str]:
    if config.cluster.interface or config.cluster.device not in (NPU, CUDA):
        return []
    names = "HCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME, TP_SOCKET_IFNAME"
    names = names if config.cluster.device == NPU else "NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME"
    return [f"# {names}: set on each node to its interface to the head"]


def _engine(derived: Derived) -> dict[str, Any] | None:
    """The vLLM engine arguments that our rollout makes of verl's; None on GPUs, where it is not used."""
    if derived.config.cluster.device == CUDA:
        return None
    rollout = derived.config.rollout
    stock: dict[str, Any] = {
        "max_num_seqs": derived.layout.rollout_sequences_per_engine,
        "max_num_batched_tokens": rollout.max_batched_tokens,
        "max_model_len": derived.sequence_tokens,
        "tensor_parallel_size": derived.layout.rollout_tensor,
        "gpu_memory_utilization": rollout.memory_share,
        "enforce_eager": not rollout.graph_mode,
        "enable_prefix_caching": False,
    }
    if options := graph_options(rollout):
        stock["additional_config"] = {"torchair_graph_config": options}
    model = derived.model_config
    return npu_engine_args(stock, model is None or has_experts(model))


def _sizes(derived: Derived) -> list[str]:
    config, layout, engine = derived.config, derived.layout, _engine(derived)
    cluster, data = config.cluster, config.data
    stages = " ".join(map(str, layout.stage_layers))
    decode = "" if engine is None else f", prefill {'in pieces' if engine['enable_chunked_prefill'] else 'whole'}"
    if engine is not None and config.rollout.graph_mode:
        sizes = compiled_sizes(config.rollout, layout)
        decode += f", decode in graphs of {', '.join(map(str, sizes))} sequences"
    hardware = "simulated NPUs" if config.node_hardware is None else config.node_hardware.name
    return [
        f"cluster: {layout.dies} dies, {cluster.nodes} x {cluster.dies_per_node} ({hardware})",
        f"rollout: {layout.rollout_engines} engines of TP{layout.rollout_tensor}, in {layout.rollout_instances} "
        f"instance{'s' * (layout.rollout_instances > 1)} of DP{layout.rollout_data} EP{layout.rollout_expert}; "
        f"{layout.rollout_sequences_per_engine} sequences an engine{decode}",
        f"actor and reference: TP{layout.actor_tensor} PP{layout.actor_pipeline} DP{layout.actor_data} "
        f"EP{layout.actor_expert}, expert DP{layout.expert_data}; layers of the stages: {stages}",
        f"step: {config.train.prompts_per_step} prompts x {config.rollout.samples_per_prompt} = "
        f"{layout.sequences_per_step} sequences of {data.max_prompt_tokens} + {data.max_response_tokens} tokens at "
        f"most, {layout.actor_sequences_per_rank} a data parallel rank",
        f"updates: {config.train.updates_per_step} a step; sequences of a rank in each: "
        f"{layout.update_sequences_per_rank}, {layout.micro_batch} at a time, and {layout.log_prob_micro_batch} at a "
        "time without gradients",
    ]
