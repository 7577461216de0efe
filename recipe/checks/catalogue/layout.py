# SPDX-License-Identifier: Apache-2.0
"""L: who holds what. The rules of `recipe.runfile.layout`, one check each, and what the model adds to them."""

from __future__ import annotations

from collections.abc import Iterator

from recipe.checks.declaration import check
from recipe.checks.facts.run import Facts
from recipe.checks.finding import Complaint, NoMatter, bad, doubtful
from recipe.checks.runfile_rules import broken, refusal, unfit
from recipe.models.architecture import GroupedQueryArchitecture
from recipe.plan.routes import routes_of, world
from recipe.runfile.engines import JOINED_ON_GPUS, UNEVEN_EXPERTS
from recipe.runfile.mindspeed import TENSOR_PARALLEL
from recipe.runfile.schema import CUDA, HARDWARE, NPU, SIM
from verl_patches.utils.routes.layouts import LayoutError


def _uneven(shared: int, ranks: int) -> bool:
    """Whether so many ranks share a number of things unevenly; a number of ranks below 1 is L001's to tell."""
    return ranks > 0 and shared % ranks > 0


for _id, _rule, _title, _why, _fix in (
    ("L001", "positive", "every size is at least 1", "nothing can be laid out over nothing", "correct the value"),
    ("L003", "actor", "the actor's layout fills the cluster",
     "Megatron-core's world is tensor x pipeline x data parallel", "change [actor] tensor_parallel or stage_layers"),
    ("L004", "experts", "the actor's expert parallel size divides the dies of a stage",
     "the experts of a stage are spread over its dies", "change [actor] expert_parallel or the number of stages"),
    ("L005", "engines", "the rollout's engines fill the cluster",
     "VLLM_DP_SIZE x tensor parallel x instances must be the world: vLLM otherwise waits for ranks that do not exist",
     "change [rollout] tensor_parallel"),
    ("L006", "instances", "the rollout's instances have the same number of engines",
     "VLLM_DP_SIZE is one number for all", "change [rollout] instances"),
    ("L007", "engine batch", "the engines share the samples of a step evenly",
     "verl cuts the batch of a step into equal parts, and stops where it cannot",
     "change [train] prompts_per_step or [rollout] samples_per_prompt"),
    ("L008", "actor batch", "the actor's ranks share the samples of a step evenly",
     "verl cuts the batch of a step into equal parts, and stops where it cannot",
     "change [train] prompts_per_step or [rollout] samples_per_prompt"),
    ("L009", "update batch", "the actor's ranks share the samples of an update evenly",
     "verl cuts a mini-batch into equal parts, and stops where it cannot",
     "change [train] prompts_per_step or updates_per_step"),
):  # fmt: skip
    check(_id, _title, needs="static", why=_why, fix=_fix)(broken(_rule))


@check(
    "L010", "the pipeline's stages have the model's layers", needs="static",
    why="a list that sums to less leaves layers out, and the checkpoint still loads: surplus tensors are ignored",
    fix="make [actor] stage_layers sum to the model's layers",
)  # fmt: skip
def _layers(facts: Facts) -> Iterator[Complaint]:
    staged, layers = sum(facts.config.actor.stage_layers), facts.architecture.layers
    if staged != layers:
        yield bad(f"stage_layers sum to {staged}", f"{layers}, the model's layers")


@check(
    "L011", "the actor's dies share the experts evenly", needs="static",
    why="Megatron-core gives every rank of an expert-parallel group the same number of experts",
    fix="make [actor] expert_parallel divide the model's experts",
)  # fmt: skip
def _actor_experts(facts: Facts) -> Iterator[Complaint]:
    experts, ranks = facts.architecture.experts, facts.config.actor.expert_parallel
    if not experts and ranks > 1:
        yield bad(f"expert_parallel = {ranks} for a model without experts", "1")
    elif _uneven(experts, ranks):
        yield bad(f"{experts} experts for expert_parallel = {ranks}", "a whole number each")


@check(
    "L018", "the actor's experts are shared by two dies or more", needs="static",
    why="verl 0.6.1 takes the experts for ordinary layers where each die has them all, and its conversion for the "
        "rollout stops with an assertion (weight_converter.py, _convert_mlp_param)",
    fix="set [actor] expert_parallel to 2 or more",
)  # fmt: skip
def _shared_experts(facts: Facts) -> Iterator[Complaint]:
    if not facts.architecture.experts:
        raise NoMatter
    if facts.config.actor.expert_parallel == 1:
        yield bad(f"[actor] expert_parallel = 1 for {facts.architecture.experts} experts", "2 or more")


check(
    "L012", "the rollout's dies share the experts evenly", needs="static",
    why="vLLM spreads the experts over all dies of an instance; our exchange of weights sends each die its own ones",
    fix="change [rollout] instances, so that the dies of one divide the model's experts",
)(unfit(UNEVEN_EXPERTS))  # fmt: skip


@check(
    "L019", "on GPUs every engine is an instance of its own", needs="static",
    why="engines of one instance meet by VLLM_DP_SIZE and VLLM_DP_RANK; on NPUs our rollout gives them their ranks, on "
        "GPUs verl's own gives none, and all would be rank 0 (vllm/config.py, ParallelConfig)",
    fix="set [rollout] instances to the number of engines, the GPUs divided by tensor_parallel",
)  # fmt: skip
def _instances_on_gpus(facts: Facts) -> Iterator[Complaint]:
    if facts.device != CUDA:
        raise NoMatter
    yield from unfit(JOINED_ON_GPUS)(facts)


@check(
    "L013", "multi-latent attention is trained without tensor parallelism", needs="static", stops_derivation=True,
    why="MindSpeed refuses it; on GPUs, Transformer Engine's column-parallel kv_down projection loses part of a "
        "gradient (TransformerEngine#1975), and that our patch of it is enough there was never tried",
    fix="set [actor] tensor_parallel = 1, and use expert_parallel and stage_layers instead",
)  # fmt: skip
def _tensor_parallel(facts: Facts) -> Iterator[Complaint]:
    yield from refusal(TENSOR_PARALLEL)(facts)
    if isinstance(facts.derived.known_architecture, GroupedQueryArchitecture):
        raise NoMatter
    if facts.device == CUDA and (tensor := facts.config.actor.tensor_parallel) > 1:
        yield doubtful(f"[actor] tensor_parallel = {tensor}", "1")


@check(
    "L014", "the attention heads divide over the tensor-parallel dies", needs="static",
    why="each die of an engine and of the actor holds whole heads; of the heads of keys and values that groups share, "
        "an engine's dies may hold copies, the actor's not",
    fix="make both tensor_parallel divide the model's attention heads, and the actor's those of keys and values",
)  # fmt: skip
def _heads(facts: Facts) -> Iterator[Complaint]:
    model, engine, actor = (
        facts.architecture,
        facts.config.rollout.tensor_parallel,
        facts.config.actor.tensor_parallel,
    )
    for section, ranks in (("rollout", engine), ("actor", actor)):
        if _uneven(model.heads, ranks):
            yield bad(f"{model.heads} heads for [{section}] tensor_parallel = {ranks}", "a whole number each")
    if _uneven(model.key_heads, actor):
        yield bad(f"{model.key_heads} heads of keys for [actor] tensor_parallel = {actor}", "a whole number each")
    if _uneven(model.key_heads, engine) and _uneven(engine, model.key_heads):
        yield bad(f"{model.key_heads} heads of keys for [rollout] tensor_parallel = {engine}", "a divisor or multiple")


@check(
    "L015", "tensor-parallel groups stay within a node", needs="static",
    why="they reduce activations in every layer; between nodes that goes over the slower network",
    fix="make both tensor_parallel divide [cluster] dies_per_node",
)  # fmt: skip
def _within_node(facts: Facts) -> Iterator[Complaint]:
    dies = facts.config.cluster.dies_per_node
    for section, ranks in (
        ("rollout", facts.config.rollout.tensor_parallel),
        ("actor", facts.config.actor.tensor_parallel),
    ):
        if _uneven(dies, ranks) and facts.config.cluster.nodes > 1:
            yield doubtful(f"[{section}] tensor_parallel = {ranks} on nodes of {dies} dies", f"a divisor of {dies}")


@check(
    "L016", "a node has as many dies as such nodes have", needs="static",
    why="an Atlas A3 node has 8 NPUs of 2 dies, an A2 node 8 of one, and Ray counts dies; a smaller number leaves dies "
        "idle",
    fix="remove [cluster] dies_per_node, or correct hardware; on the nodes, --node counts their dies",
)  # fmt: skip
def _dies(facts: Facts) -> Iterator[Complaint]:
    cluster = facts.config.cluster
    known = HARDWARE.get(cluster.hardware or "")
    if known is None:
        raise NoMatter
    dies, usual = cluster.dies_per_node, known.dies_per_node
    here = facts.machine.dies if facts.device == NPU else facts.machine.gpus
    if dies < usual and not (facts.node and here == dies):
        yield doubtful(f"dies_per_node = {dies} with hardware {cluster.hardware}", f"{usual}, as such nodes have")


@check(
    "L017", "every pipeline stage has room for the embedding and the head", needs="static",
    why="the first stage also holds the embedding, the last one the output projection and the loss; with 8 of the "
        "671B model's experts on a die, each is more than a layer",
    fix="give the first and the last of [actor] stage_layers no more layers than the others",
)  # fmt: skip
def _ends(facts: Facts) -> Iterator[Complaint]:
    stages = facts.config.actor.stage_layers
    if len(stages) < 3 or facts.device == SIM:
        raise NoMatter
    if max(stages[0], stages[-1]) > min(stages[1:-1]):
        yield doubtful(f"stage_layers = {stages}", "ends that are not longer than the stages between")


@check(
    "L020", "the direct weight sync has routes from the actor's layout to the rollout's", needs="static",
    why="every die works out what it is sent and by whom from the sizes of model and layouts; a tensor that cannot be "
        "cut as both engines ask ends the run at its first sync",
    fix="change the size that is named, or set [rollout] direct_sync = false",
)  # fmt: skip
def _routes(facts: Facts) -> Iterator[Complaint]:
    if not facts.config.rollout.direct_sync or facts.device == CUDA or not facts.architecture.has_routes:
        raise NoMatter
    try:
        world(routes_of(facts.subject))
    except LayoutError as error:
        yield bad(f"[rollout] direct_sync: {error}", "sizes that go together")
