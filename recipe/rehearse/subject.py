# SPDX-License-Identifier: Apache-2.0
"""What is rehearsed of a run: the same run on simulated dies, in the part that one die of each stage has of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from recipe.plan import resident
from recipe.plan.subject import Subject, architecture_of, subject
from recipe.rehearse.lengths import Lengths, read_lengths
from recipe.runfile.engines import syncs_directly
from recipe.runfile.errors import ConfigError
from recipe.runfile.passed import bare
from recipe.runfile.schema import CUDA, DIE, HOST, OFFLOADED, SIM, SWAPPED, RunConfig, Simulator

# Tensors of floating point numbers have no contents from this size on; below, they cost nothing to compute.
HOLLOW_FROM_BYTES = 2**20


@dataclass(frozen=True)
class Options:
    """What a rehearsal is asked for; each None is what the run file says.

    Attributes:
        stages: pipeline stages, from 0.
        steps: the last one is counted; None: as many as it takes to come to what every later one is like.
        prompt, response: tokens of every prompt and every answer.
        lengths: a file with a histogram of them, instead.
        expert_load: the share that the experts of the rehearsed die are sent, as a multiple of an even one.
        micro_batches: of an update; those of the passes without gradients are at most two.
        rollout: on which stages there is one: "once", on the first that is rehearsed; "every"; "none". The engines on
            the dies of all stages are alike.
        decode_steps: tokens that the engine generates of each answer.
        save: a checkpoint is saved after the last step; None: if the run saves any.
    """

    stages: tuple[int, ...] | None = None
    steps: int | None = None
    prompt: int | None = None
    response: int | None = None
    lengths: Path | None = None
    expert_load: float = 1.0
    micro_batches: int | None = None
    rollout: str = "once"
    decode_steps: int = 3
    save: bool | None = None


@dataclass(frozen=True)
class Rehearsed:
    """A run as it is rehearsed.

    Attributes:
        name: of the run.
        planned: the run on simulated dies, as it is planned.
        strict: the simulated dies refuse what an NPU does not take.
        lengths: tokens of prompts and answers.
        outside_bytes: what a die holds beside what torch counts, by the plan; torch has so much less.
        notes: what is not as in the run, a sentence each.
    """

    name: str
    given: RunConfig
    planned: Subject
    strict: bool
    mindspeed: bool
    options: Options
    lengths: Lengths
    outside_bytes: int
    notes: tuple[str, ...]

    @property
    def config(self) -> RunConfig:
        return self.planned.config

    @property
    def stages(self) -> tuple[int, ...]:
        every = range(self.planned.layout.actor_pipeline)
        return tuple(every) if self.options.stages is None else self.options.stages

    @property
    def steps(self) -> int:
        """An optimizer that is on the die in an update makes its moments in the first step, for all later ones."""
        return self.options.steps or (2 if self.config.actor.optimizer in (DIE, OFFLOADED) else 1)

    @property
    def saves(self) -> bool:
        """A checkpoint is saved after the last step."""
        return self.config.run.save_every > 0

    def rank(self, stage: int) -> int:
        """The first die of a stage: the stages are Megatron-core's outermost dimension (tp-cp-ep-dp-pp)."""
        layout = self.planned.layout
        return stage * (layout.dies // layout.actor_pipeline)

    def update_micro_batches(self, stage: int) -> int:
        """As many as it takes to see as many of them in flight as in a step, and one that follows."""
        layout = self.planned.layout
        every = layout.update_sequences_per_rank // layout.micro_batch
        return min(every, self.options.micro_batches or self.in_flight(stage) + 1)

    def in_flight(self, stage: int) -> int:
        """Micro-batches of a step whose forward pass is done and whose backward pass is not, at most."""
        layout = self.planned.layout
        return min(layout.actor_pipeline - stage, layout.update_sequences_per_rank // layout.micro_batch)

    def update_sequences(self, stage: int) -> int:
        return self.update_micro_batches(stage) * self.planned.layout.micro_batch

    def rollout_sequences(self, stage: int) -> int:
        """Those of an engine of the run, or none."""
        wanted = {"once": stage == self.stages[0], "every": True, "none": False}[self.options.rollout]
        return self.planned.layout.rollout_sequences_per_engine if wanted else 0

    @property
    def decode_steps(self) -> int:
        return min(self.options.decode_steps, self.lengths.responses_spread.most)

    @property
    def describes_stages(self) -> bool:
        """Stages are told of each other's tensors, for the switch to the rollout; on the routes of a direct sync nobody
        asks for them."""
        direct = syncs_directly(self.planned.config, self.planned.model)
        return self.options.rollout != "none" and self.planned.layout.actor_pipeline > 1 and not direct

    @property
    def forward_sequences(self) -> int:
        """Two micro-batches: the second one finds what the first has left."""
        layout = self.planned.layout
        return min(layout.actor_sequences_per_rank, 2 * layout.log_prob_micro_batch)


def rehearsed(config: RunConfig, options: Options, upstream: Path) -> Rehearsed:
    """The run as it is rehearsed.

    Args:
        config: the run.
        options: what is asked for.
        upstream: the tree of upstream sources; MindSpeed takes part if it is in it.

    Raises:
        ConfigError: a run on GPUs, a stage that there is not, lengths beyond the run file's, or a share of tokens that
            no router can send.
    """
    if config.cluster.device == CUDA:
        raise ConfigError('[cluster] device = "cuda"; only runs on NPUs can be rehearsed')
    model = architecture_of(config)
    mindspeed = (upstream / "mindspeed").is_dir()
    outside_bytes = sum(resident.outside(subject(config, model)).values())
    simulated, notes = _on_simulated_dies(config, mindspeed, outside_bytes)
    if config.verl:
        names = ", ".join(map(bare, config.verl))
        notes = (*notes, f"settings under [verl] reach verl's workers, but no sizes follow from them: {names}")
    if options.save is not None:
        saved = dataclasses.replace(simulated.run, save_every=int(options.save))
        simulated = dataclasses.replace(simulated, run=saved)
    planned = dataclasses.replace(subject(simulated, model), fused=mindspeed, stacked=mindspeed)
    stages = planned.layout.actor_pipeline
    for stage in options.stages or ():
        if not 0 <= stage < stages:
            raise ConfigError(f"--stage {stage}; expected one of 0 to {stages - 1}")
    lengths = _lengths(options, planned)
    _require_possible(planned, options.expert_load)
    strict = config.simulator.strict if config.simulated and config.simulator.strict is not None else None
    return Rehearsed(
        name=config.run.name,
        given=config,
        planned=planned,
        strict=model.as_published if strict is None else strict,
        mindspeed=mindspeed,
        options=options,
        lengths=lengths,
        outside_bytes=outside_bytes,
        notes=notes,
    )


def _on_simulated_dies(config: RunConfig, mindspeed: bool, outside_bytes: int) -> tuple[RunConfig, tuple[str, ...]]:
    simulated = dataclasses.replace(
        config,
        cluster=dataclasses.replace(config.cluster, device=SIM),
        environment={},
        simulator=Simulator(
            hbm_mib=config.hbm_bytes_per_die // 2**20,
            outside_mib=outside_bytes // 2**20,
            strict=config.simulator.strict,
        ),
    )
    if mindspeed or config.simulated:
        return simulated, ()
    notes = [
        "MindSpeed is not among the upstream sources (python -m recipe sync --with mindspeed): Megatron-core alone"
    ]
    if config.actor.optimizer == SWAPPED:
        simulated = dataclasses.replace(simulated, actor=dataclasses.replace(simulated.actor, optimizer=HOST))
        notes.append(f'optimizer = "{HOST}" stands in for "{SWAPPED}", which is MindSpeed\'s')
    return simulated, tuple(notes)


def _lengths(options: Options, planned: Subject) -> Lengths:
    limits = planned.prompt_tokens, planned.response_tokens
    if options.lengths is None:
        prompt = _length("prompt", options.prompt, limits[0])
        return Lengths.equal(prompt, _length("response", options.response, limits[1]), *limits)
    if options.prompt is not None or options.response is not None:
        raise ConfigError("--lengths beside --prompt-tokens or --response-tokens; expected the one or the others")
    return read_lengths(options.lengths, *limits)


def _length(name: str, asked: int | None, limit: int) -> int:
    if asked is not None and not 0 < asked <= limit:
        raise ConfigError(f"--{name}-tokens {asked}; expected 1 to {limit}, the run's limit")
    return limit if asked is None else asked


def _require_possible(planned: Subject, load: float) -> None:
    """A token chooses each expert once, so that a die with few of them can only be sent so much."""
    model, ranks = planned.model, planned.layout.actor_expert
    if not model.experts:
        if load != 1:
            raise ConfigError(f"--expert-load {load:g} for a model without experts; leave it out")
        return
    local = model.experts // ranks
    most = min(model.experts_per_token, local) * ranks / model.experts_per_token
    if load > most:
        raise ConfigError(
            f"--expert-load {load:g}; a die with {local} of {model.experts} experts can be sent at most {most:g} times "
            f"its even share, as a token chooses {model.experts_per_token} different ones"
        )
