# SPDX-License-Identifier: Apache-2.0
"""T: batches, loss, optimizer and memory settings of the training side, from the run file alone."""

from __future__ import annotations

from collections.abc import Iterator

from recipe.checks.declaration import check
from recipe.checks.facts.run import Facts
from recipe.checks.finding import CannotTell, Complaint, NoMatter, bad, doubtful
from recipe.checks.runfile_rules import broken, refusal
from recipe.runfile.errors import ConfigError
from recipe.runfile.mindspeed import SWAPPED_OPTIMIZER
from recipe.runfile.schema import CUDA, HOST, NPU, ON_POLICY, REPLAY_OFF, SIM

# One step of the published 256-die runs takes 1045 s and more; the first compiles its graphs, too.
SLOWEST_STEP_S = 1800
# The first message after a launch that loads 671B parameters on 256 dies.
SLOWEST_SETUP_S = 1800
LARGE_LAYERS = 32
# verl 0.6.1's own nccl_timeout.
STOCK_TIMEOUT_S = 600
# What all nodes together are taken to read from shared storage, and what a group's links take for each die in it.
STORAGE_BYTES_PER_S = 10**9
LINK_S_PER_DIE = 1
# MindSpeed-RL's script for 416 dies and this model sets HCCL_CONNECT_TIMEOUT and HCCL_EXEC_TIMEOUT to this.
PUBLISHED_TIMEOUT_S = 3600


@check(
    "T001", "the on-policy loss has exactly one update a step", needs="static",
    why="it takes the current log-probabilities for the old ones, which is true of the first update of a step only; "
        "later ones would be made with a ratio of 1, unclipped",
    fix='set [train] updates_per_step = 1, or loss_mode = "vanilla"',
)  # fmt: skip
def _on_policy(facts: Facts) -> Iterator[Complaint]:
    train = facts.config.train
    if train.loss_mode == ON_POLICY and train.updates_per_step != 1:
        yield bad(f"loss_mode {ON_POLICY} with updates_per_step = {train.updates_per_step}", "one update a step")


check(
    "T002", "the updates of a step share its prompts evenly", needs="static",
    why="verl cuts the batch of a step into mini-batches of one size",
    fix="make [train] updates_per_step divide prompts_per_step",
)(broken("updates"))  # fmt: skip


@check(
    "T003", "every prompt has several answers", needs="static",
    why="GRPO's advantage is an answer's reward beside those of the same prompt; of one answer it is always 0",
    fix="set [rollout] samples_per_prompt to 2 or more (published runs: 16 and 32)",
)  # fmt: skip
def _samples(facts: Facts) -> Iterator[Complaint]:
    if facts.config.rollout.samples_per_prompt < 2:
        yield bad(f"samples_per_prompt = {facts.config.rollout.samples_per_prompt}", "at least 2")


@check(
    "T004", "an optimizer is divided between host and die on GPUs only", needs="static",
    why="Megatron-core 0.12.1 tells the two parts by the class of their Adam, which is torch's for both where there is "
        "no Transformer Engine: a resumed run has the die's states on the host, and stops at its first update",
    fix="remove [actor] optimizer_host_share: the host then holds all of it",
)  # fmt: skip
def _divided(facts: Facts) -> Iterator[Complaint]:
    actor = facts.config.actor
    if actor.optimizer != HOST:
        raise NoMatter
    if actor.host_share < 1 and facts.device != CUDA:
        yield bad(f"optimizer_host_share = {actor.host_share} with device {facts.device}", "1, or device cuda")


check(
    "T005", "a swapped optimizer has MindSpeed, whose feature it is", needs="static", stops_derivation=True,
    why="verl drops a key that Megatron-core does not know without an error: the optimizer would stay on the die",
    fix='set [actor] optimizer = "offloaded", or [cluster] device = "npu"',
)(refusal(SWAPPED_OPTIMIZER))  # fmt: skip


@check(
    "T006", "the longest sequence fits into a pass of an update", needs="static",
    why="a micro-batch is at least one sequence: with a smaller budget the pass takes more memory than planned",
    fix="raise [actor] micro_batch_tokens to the longest prompt and response together, or shorten these",
)  # fmt: skip
def _micro_batch(facts: Facts) -> Iterator[Complaint]:
    actor, longest = facts.config.actor, facts.sequence_tokens
    for name, tokens in (
        ("micro_batch_tokens", actor.micro_batch_tokens),
        ("log_prob_micro_batch_tokens", actor.log_prob_micro_batch_tokens),
    ):
        if tokens is not None and tokens < longest:
            yield doubtful(f"[actor] {name} = {tokens}", f"at least {longest}, the longest sequence")


@check(
    "T007", "the learning rate is of the order that models of this size are trained with", needs="static",
    why="published runs of the 671B model use 1e-6 and 2e-7; a small model's run has a hundred times that, and at "
        "0 nothing is learned",
    fix="set [train] learning_rate (671B: 1e-6)",
)  # fmt: skip
def _learning_rate(facts: Facts) -> Iterator[Complaint]:
    rate = facts.config.train.learning_rate
    if rate <= 0:
        yield bad(f"learning_rate = {rate}", "above 0")
    elif rate > 1e-5 and facts.architecture.layers >= LARGE_LAYERS:
        yield doubtful(f"learning_rate = {rate} for {facts.architecture.layers} layers", "1e-5 or less")


@check(
    "T008", "the loss and the gradient are clipped at something", needs="static",
    why="a clip of 0 lets no gradient through where the ratio has moved at all, and a longest gradient of 0 turns the "
        "clipping off",
    fix="correct the value in [train]",
)  # fmt: skip
def _clips(facts: Facts) -> Iterator[Complaint]:
    train = facts.config.train
    for name, value in (("clip_ratio", train.clip_ratio), ("max_gradient_norm", train.max_gradient_norm)):
        if value <= 0:
            yield bad(f"{name} = {value}", "above 0")
    high = train.clip_ratio_high
    if high is not None and high < train.clip_ratio:
        yield doubtful(f"clip_ratio_high = {high}", f"at least clip_ratio, {train.clip_ratio}")


@check(
    "T009", "recomputed layers are layers that a stage has", needs="static",
    why="method uniform takes a stage's layers in groups of `layers`, and looks for layers that the last group lacks; "
        "method block ignores what is too much",
    fix="make [actor.recompute] layers divide every stage (uniform), or at most the longest stage (block)",
)  # fmt: skip
def _recompute(facts: Facts) -> Iterator[Complaint]:
    recompute = facts.config.actor.recompute
    if recompute is None or recompute.layers is None:
        raise NoMatter
    stages = facts.config.actor.stage_layers
    uneven = [stage for stage in stages if stage % recompute.layers]
    if recompute.method == "uniform" and uneven:
        yield bad(f"groups of {recompute.layers} layers in a stage of {uneven[0]}", "a divisor of every stage")
    elif recompute.method == "block" and recompute.layers > max(stages):
        yield doubtful(f"layers = {recompute.layers}", f"at most {max(stages)}, the longest of stage_layers")


@check(
    "T010", "a long run keeps checkpoints", needs="static",
    why="without one, a run that ends for any reason starts anew",
    fix="set [run] save_every to some tens of steps, at most [run] steps",
)  # fmt: skip
def _saves(facts: Facts) -> Iterator[Complaint]:
    run = facts.config.run
    if run.save_every > run.steps:
        yield doubtful(f"save_every = {run.save_every} in a run of {run.steps} steps", "at most the steps of the run")
    elif run.save_every == 0 and facts.device != SIM and facts.config.model.kind == "path" and run.steps > 20:
        yield doubtful(f"save_every = 0 in a run of {run.steps} steps on {facts.layout.dies} dies", "checkpoints")


@check(
    "T011", "the deadlines are longer than a step and a start take", needs="static",
    why="the launcher stops a run that has been silent for so long; published steps of 256 dies take 1045 s and more",
    fix=f"set [run] step_deadline_s to {SLOWEST_STEP_S} and setup_deadline_s to {SLOWEST_SETUP_S} or more",
)  # fmt: skip
def _deadlines(facts: Facts) -> Iterator[Complaint]:
    if facts.device == SIM or facts.architecture.layers < LARGE_LAYERS:
        raise NoMatter
    run = facts.config.run
    if run.step_deadline_s < SLOWEST_STEP_S:
        yield doubtful(
            f"step_deadline_s = {run.step_deadline_s}", f"{SLOWEST_STEP_S} s or more for a model of this size"
        )
    if run.setup_deadline_s < SLOWEST_SETUP_S:
        yield doubtful(f"setup_deadline_s = {run.setup_deadline_s}", f"{SLOWEST_SETUP_S} s or more")


@check(
    "T012", "training picks the experts that the rollout picks", needs="static",
    why="vLLM routes within groups of experts, and verl does not tell Megatron-core of them: trainer and sampler "
        "would take the same token to other experts; the launcher tells it, from config.json",
    fix="report it: the launcher is at fault",
)  # fmt: skip
def _expert_groups(facts: Facts) -> Iterator[Complaint]:
    sizes = facts.architecture
    if sizes.expert_groups == 1:
        return
    try:
        derived = facts.derived.transformer
    except ConfigError as error:
        raise CannotTell(str(error)) from None
    wanted = {"moe_router_num_groups": sizes.expert_groups, "moe_router_group_topk": sizes.expert_groups_kept}
    if {name: derived.get(name) for name in wanted} != wanted:
        yield bad(f"Megatron-core is told {derived}", f"{wanted} among it")


@check(
    "T013", "the host's cores share the work of an optimizer that is there", needs="static",
    why="Ray gives each of its processes one thread (OMP_NUM_THREADS=1) where nothing else is said: one core of the "
        "node would update all that a die holds, while the others wait",
    fix="set [environment] OMP_NUM_THREADS to the cores of a node divided by its dies",
)  # fmt: skip
def _threads(facts: Facts) -> Iterator[Complaint]:
    if facts.config.actor.optimizer != HOST or facts.device == SIM:
        raise NoMatter
    if "OMP_NUM_THREADS" not in facts.config.environment:
        share = facts.machine.cpus // max(1, facts.config.cluster.dies_per_node)
        yield doubtful(
            'optimizer = "host" without [environment] OMP_NUM_THREADS',
            f"{share}, with the {facts.machine.cpus} cores here" if facts.node and share else "some cores for each die",
        )


@check(
    "T014", "old and current log-probabilities come from passes of one size", needs="static",
    why="the vanilla loss divides the probabilities of the update by those of a pass before it, which are the same in "
        "a step's first update. Passes of another size may round otherwise and send a token to another expert: ratios "
        "other than 1, clipped ones among them, that no update has made",
    fix='set [actor] log_prob_micro_batch_tokens to micro_batch_tokens, or [train] loss_mode = "npu_on_policy", which '
        "needs no such pass; or accept it as the published run of 256 dies does",
)  # fmt: skip
def _alike(facts: Facts) -> Iterator[Complaint]:
    if facts.config.train.loss_mode == ON_POLICY:
        raise NoMatter
    update, before = facts.layout.micro_batch, facts.layout.log_prob_micro_batch
    if update != before:
        yield doubtful(
            f"old log-probabilities of {before} sequences at a time, updates of {update}", "the same number in both"
        )


@check(
    "T015", "collectives wait long enough for the slowest rank", needs="static",
    why="the first ones wait until every rank has read its weights, compiled its graphs and linked up with all others; "
        "a rank that waits for longer than this ends the run. Expected are the 600 s that verl waits for any model, "
        "the time of reading the weights at 1 GB/s in all, and a second for each die, but no more than the 3600 s that "
        "MindSpeed-RL gives 416 dies",
    fix="raise [cluster] collective_timeout_s (default 3600), or remove it",
)  # fmt: skip
def _collectives(facts: Facts) -> Iterator[Complaint]:
    if facts.device == SIM:
        raise NoMatter
    read = 0 if facts.config.model.kind == "random_init" else 2 * facts.parameters // STORAGE_BYTES_PER_S
    wanted = min(STOCK_TIMEOUT_S + read + LINK_S_PER_DIE * facts.layout.dies, PUBLISHED_TIMEOUT_S)
    timeout = facts.config.cluster.collective_timeout_s
    if timeout < wanted:
        yield doubtful(f"collective_timeout_s = {timeout} for {facts.layout.dies} dies", f"{wanted} s or more")


check(
    "T016", "the warm-up of the learning rate ends before the run does", needs="static",
    why="Megatron-core's schedule asserts it without a word, on every rank, once the weights are loaded; it compares "
        "the updates of the warm-up with the steps, however many updates a step has",
    fix="lower [train] warmup_steps, or raise [run] steps",
)(broken("warm-up"))  # fmt: skip


@check(
    "T017", "the router works in a type that the device multiplies", needs="static",
    why="verl sets the actor's router to float64, and the matrix product of an NPU takes bfloat16, float16 and float32 "
        "only (CANN 8.2.RC1, aclnnMm): the first expert layer would end the run; the launcher sets float32",
    fix="report it: the launcher is at fault",
)  # fmt: skip
def _router_type(facts: Facts) -> Iterator[Complaint]:
    if facts.config.cluster.device == CUDA:
        raise NoMatter
    try:
        router_type = facts.derived.transformer.get("moe_router_dtype")
    except ConfigError as error:
        raise CannotTell(str(error)) from None
    if router_type != "fp32":
        yield bad(f"moe_router_dtype = {router_type}", "fp32")


@check(
    "T018", "the sampler's choices of experts are recorded", needs="static",
    why="they are recorded by hooks on vLLM-Ascend's routers; GPUs run another vLLM, without them, and every router of "
        "the trainer would go on choosing by itself. With compiled graphs the recording is a part of the graph; the "
        "simulated NPUs on which that was tried compile nothing. A step whose recording is incomplete stops the run",
    fix='set [train] routing_replay = "off"; or, on NPUs, [rollout] graph_mode = false, or try a few steps first',
)  # fmt: skip
def _replay(facts: Facts) -> Iterator[Complaint]:
    if facts.config.train.routing_replay == REPLAY_OFF:
        return
    if facts.device == CUDA:
        yield bad("routing_replay on GPUs", "off")
    elif facts.device == NPU and facts.config.rollout.graph_mode:
        yield doubtful("routing_replay with compiled graphs, which no NPU has run", "graph_mode = false")
