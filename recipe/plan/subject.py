# SPDX-License-Identifier: Apache-2.0
"""What is planned: a run, its layout, the sizes of its model, and which kernels it runs on."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.models.architecture import Architecture
from recipe.models.published import KNOWN
from recipe.plan.parameters import FP32, FP64
from recipe.runfile.derive import Layout, derive_run
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import CUDA, NPU, ON_POLICY, RunConfig

# The longest prompt of the sums that go with the tiny model, padded as at launch.
TINY_PROMPT_TOKENS = 16


@dataclass(frozen=True)
class Subject:
    """A run to be planned. `prompt_tokens` is the padded prompt length.

    `fused`: MindSpeed's or Transformer Engine's kernels, which keep less for the backward pass than the plain-torch
    ones that stand in for them on a simulated die. `stacked`: MindSpeed takes part, whose grouped layers copy their
    experts' weights in every pass. `expert_load`: the tokens that the busiest die's experts are sent, as a multiple of
    an even spread.
    """

    config: RunConfig
    layout: Layout
    model: Architecture
    prompt_tokens: int
    fused: bool
    stacked: bool
    expert_load: float = 1.0

    @property
    def response_tokens(self) -> int:
        return self.config.data.max_response_tokens

    @property
    def sequence_tokens(self) -> int:
        return self.prompt_tokens + self.response_tokens

    @property
    def on_policy(self) -> bool:
        """There is no pass for the old log-probabilities."""
        return self.config.train.loss_mode == ON_POLICY

    @property
    def router_bytes(self) -> int:
        """Bytes of an element of the type that the actor's router works in."""
        return FP64 if self.config.router_type == "fp64" else FP32

    @property
    def on_npu(self) -> bool:
        return self.config.cluster.device == NPU

    @property
    def on_ascend(self) -> bool:
        """vLLM-Ascend runs the rollout: on an NPU or a simulated one."""
        return self.config.cluster.device != CUDA

    def stage_start(self, stage: int) -> int:
        """The number of the first layer of a pipeline stage, from 0."""
        return sum(self.layout.stage_layers[:stage])


def subject(config: RunConfig, model: Architecture | None = None, prompt_tokens: int | None = None) -> Subject:
    """The run as it is planned.

    Args:
        config: the run.
        model: its sizes; by default those that `architecture_of` finds.
        prompt_tokens: the padded prompt length; by default the run file's limit, or that of the tiny model's sums.

    Raises:
        ConfigError: a layout that does not exist, or a model whose sizes cannot be known.
    """
    model = architecture_of(config) if model is None else model
    if prompt_tokens is None and config.data.kind == "arithmetic":
        prompt_tokens = min(TINY_PROMPT_TOKENS, config.data.max_prompt_tokens)
    layout = derive_run(config).layout_for(prompt_tokens)
    if layout.layers != model.layers:
        raise ConfigError(
            f"[actor] stage_layers sums to {layout.layers}, but the model has {model.layers} layers; correct the list"
        )
    return Subject(
        config,
        layout,
        model,
        prompt_tokens or config.data.max_prompt_tokens,
        not config.simulated,
        config.cluster.device == NPU,
    )


def architecture_of(config: RunConfig) -> Architecture:
    """The sizes of the run's model: from its config.json where that can be seen, else those that the run file names.

    Raises:
        ConfigError: neither is there.
    """
    architecture = derive_run(config).architecture
    if architecture is None:
        raise ConfigError(
            f"[model] path: {config.model.path} has no config.json on this machine; name the sizes by "
            f"[model] architecture, one of {', '.join(KNOWN)}"
        )
    return architecture
