# SPDX-License-Identifier: Apache-2.0
"""V: lengths, token budget, sampling and graph mode of the rollout, from the run file alone."""

from __future__ import annotations

from collections.abc import Iterator

from recipe.checks.declaration import check
from recipe.checks.facts.run import Facts
from recipe.checks.finding import Complaint, NoMatter, bad, doubtful
from recipe.checks.runfile_rules import broken, unfit
from recipe.runfile.engines import (
    BUDGET,
    EXCHANGE,
    GRAPH_FAMILY,
    GRAPH_HEADS,
    GRAPH_SIZE,
    HEADS_IN_GRAPHS,
    graph_sequences,
)
from recipe.runfile.schema import CUDA, NPU, ON_POLICY, PLACEHOLDER_HEAD, SIM


@check(
    "V001", "prompt and response fit into the model's positions", needs="static",
    why="vLLM refuses a max_model_len beyond max_position_embeddings; the rotary embedding is not made for it",
    fix="lower [data] max_prompt_tokens or max_response_tokens",
)  # fmt: skip
def _positions(facts: Facts) -> Iterator[Complaint]:
    longest, positions = facts.sequence_tokens, facts.architecture.max_positions
    if longest > positions:
        yield bad(f"{longest} tokens of prompt and response", f"at most {positions}, max_position_embeddings")


check(
    "V002", "a step of an engine has a token for each of its sequences", needs="static",
    why="vLLM refuses max_num_batched_tokens below max_num_seqs",
    fix="raise [rollout] max_batched_tokens, or use more engines",
)(unfit(BUDGET))  # fmt: skip


@check(
    "V003", "the NZ layout of the KV cache never meets a prompt in pieces", needs="static",
    why="with a token budget below the longest sequence prompts are prefilled in pieces, and such mixed batches write "
        "the cache in another layout than graph decode reads",
    fix="raise [rollout] max_batched_tokens to the longest sequence, or remove kv_nz",
)  # fmt: skip
def _nz(facts: Facts) -> Iterator[Complaint]:
    if not facts.config.rollout.kv_nz:
        raise NoMatter
    # Simulated runs pad to the longest prompt of their data, which may be shorter.
    yield from broken("budget", doubtful if facts.device == SIM else bad)(facts)


@check(
    "V004", "the token budget takes a whole prompt", needs="static",
    why="below the longest sequence chunked prefill is switched on, which vLLM-Ascend's scheduler insists on then; "
        "below the longest prompt even fresh prompts go in pieces, and every piece is a step of all engines",
    fix="raise [rollout] max_batched_tokens to max_prompt_tokens or more, if the memory allows",
)  # fmt: skip
def _whole_prompt(facts: Facts) -> Iterator[Complaint]:
    budget, prompt = facts.config.rollout.max_batched_tokens, facts.config.data.max_prompt_tokens
    if budget < prompt:
        yield doubtful(f"max_batched_tokens = {budget}", f"at least {prompt}, the longest prompt")


@check(
    "V005", "the graph's batch size is one that vLLM-Ascend keeps", needs="static",
    why="it rounds the size up to a multiple of the tensor-parallel size and drops it when it is then beyond the token "
        "budget, and the first full batch stops the run with a bad graph batch size",
    fix="make the sequences of an engine a multiple of [rollout] tensor_parallel, within max_batched_tokens",
)  # fmt: skip
def _graph_size(facts: Facts) -> Iterator[Complaint]:
    if not facts.config.rollout.graph_mode:
        raise NoMatter
    complaints = list(unfit(GRAPH_SIZE)(facts))
    yield from complaints
    size, padded = facts.layout.rollout_sequences_per_engine, graph_sequences(facts.layout)
    if padded != size and not complaints:
        yield doubtful(
            f"{size} sequences of an engine are padded to {padded}", f"a multiple of {facts.layout.rollout_tensor}"
        )


@check(
    "V006", "the rollout on NPUs decodes with compiled graphs", needs="static",
    why="without them the host starts every operator of every token; all published runs use them",
    fix="set [rollout] graph_mode = true (leave it off to debug)",
)  # fmt: skip
def _graph_mode(facts: Facts) -> Iterator[Complaint]:
    if facts.device != NPU:
        raise NoMatter
    if not facts.config.rollout.graph_mode:
        if not facts.architecture.has_graphs or facts.architecture.heads < min(HEADS_IN_GRAPHS):
            raise NoMatter
        yield doubtful("graph_mode = false", "true")


@check(
    "V007", "sampling is from the policy that is trained", needs="static",
    why="top_p and top_k cut the distribution, and the trainer's log-probabilities are those of the whole one; the "
        "on-policy loss has nothing to correct the difference with",
    fix="set [rollout] top_p = 1.0 and top_k = 0, or accept it as the published run with top_p 0.9 does",
)  # fmt: skip
def _truncated(facts: Facts) -> Iterator[Complaint]:
    rollout = facts.config.rollout
    cut = [f"top_p = {rollout.top_p}"] * (rollout.top_p < 1) + [f"top_k = {rollout.top_k}"] * (rollout.top_k > 0)
    if cut and facts.config.train.loss_mode == ON_POLICY:
        yield doubtful(f"{' and '.join(cut)} with loss_mode {ON_POLICY}", "the whole distribution")


@check(
    "V008", "answers of one prompt differ", needs="static",
    why="at a very low temperature all samples of a prompt are the same, their advantages 0, and nothing is learned",
    fix="set [rollout] temperature to 0.6 or more (published: 0.9 and 1.0)",
)  # fmt: skip
def _temperature(facts: Facts) -> Iterator[Complaint]:
    if facts.config.rollout.temperature < 0.3:
        yield doubtful(f"temperature = {facts.config.rollout.temperature}", "0.3 or more")


@check(
    "V009", "answers of forced length are for measuring only", needs="static",
    why="with ignore_eos every answer runs to max_response_tokens: rewards of real weights are then worthless",
    fix='remove [rollout] ignore_eos, or set [model] kind = "random_init"',
)  # fmt: skip
def _forced_length(facts: Facts) -> Iterator[Complaint]:
    if facts.config.rollout.ignore_eos and facts.config.model.kind != "random_init":
        yield doubtful("ignore_eos with weights that mean something", "answers that may end")


@check(
    "V010", "the memory share leaves room for what is not the rollout's", needs="static",
    why="weights and KV cache take that share of the whole die, and parameters of the actor are still on it while "
        "weights are handed over; vLLM then finds less KV memory than none (vllm-ascend#9372)",
    fix="set [rollout] memory_share to 0.9 or less (python -m recipe plan says what fits)",
)  # fmt: skip
def _memory_share(facts: Facts) -> Iterator[Complaint]:
    if facts.config.rollout.memory_share > 0.95:
        yield bad(f"memory_share = {facts.config.rollout.memory_share}", "0.95 or less")


@check(
    "V011", "validation happens, and happens within the run", needs="static",
    why="without validation a run shows no score on problems it was not trained on",
    fix="set [run] validate_every between 1 and steps",
)  # fmt: skip
def _validation(facts: Facts) -> Iterator[Complaint]:
    run = facts.config.run
    if facts.config.model.kind == "random_init":
        raise NoMatter
    if run.validate_every > run.steps:
        yield doubtful(f"validate_every = {run.validate_every} in a run of {run.steps} steps", "at most the steps")
    elif run.validate_every == 0 and not run.validate_first:
        yield doubtful("no validation at all", "some")


@check(
    "V012", "the placeholders of the shipped run files are replaced", needs="node",
    why="192.0.2.1 is an address that nobody has, and the nodes would wait for it until the deadline",
    fix="set [cluster] head to the head node's address",
)  # fmt: skip
def _placeholders(facts: Facts) -> Iterator[Complaint]:
    if facts.device == SIM:
        raise NoMatter
    if facts.config.cluster.head == PLACEHOLDER_HEAD:
        yield bad(f"[cluster] head = {PLACEHOLDER_HEAD}", "the address of a node of yours")


@check(
    "V013", "a die has as many attention heads as graph mode decodes", needs="static",
    why="npu_fused_infer_attention_score takes 32, 64 or 128 heads of a latent of 512 (op-plugin 7.1.0); a die with "
        "others would fail at its first token",
    fix="set [rollout] tensor_parallel so that each die has 32, 64 or 128 heads, or graph_mode = false",
)  # fmt: skip
def _heads_in_graph(facts: Facts) -> Iterator[Complaint]:
    if not (facts.config.rollout.graph_mode and (facts.device == NPU or facts.derived.strict)):
        raise NoMatter
    yield from unfit(GRAPH_HEADS)(facts)


@check(
    "V014", "a model that is run strictly has sizes that an NPU takes", needs="static",
    why="with [simulator] strict the simulated device refuses, as an NPU does, heads and experts of other sizes than "
        "those of DeepSeek-V3, or of the large models with grouped queries; the run would end at its first prompt",
    fix='take out [simulator] strict, or set [model] sizes = "legal"',
)  # fmt: skip
def _strict(facts: Facts) -> Iterator[Complaint]:
    if facts.device != SIM or not facts.config.simulator.strict:
        raise NoMatter
    if not facts.architecture.as_published:
        yield bad("[simulator] strict = true for a model with other head sizes or experts", "DeepSeek-V3's own")


@check(
    "V015", "the dies of an instance are as many as exchange tokens for their experts", needs="static",
    why="from 16 dies on vLLM-Ascend decodes by npu_moe_distribute_dispatch_v2, which takes up to 384 of them, and of "
        "an A2 16, 32 or 64 (CANN 8.2.RC1); others fail when the engine warms up",
    fix="change [rollout] instances, so that an instance has as many dies as that",
)  # fmt: skip
def _exchange(facts: Facts) -> Iterator[Complaint]:
    if facts.device == CUDA or not facts.architecture.experts:
        raise NoMatter
    yield from unfit(EXCHANGE)(facts)


check(
    "V016", "graph mode is asked of a model that has it", needs="static",
    why="vLLM-Ascend 0.9.1 compiles graphs of DeepSeek's models alone, and refuses the option for all others at its "
        "start",
    fix="set [rollout] graph_mode = false",
)(unfit(GRAPH_FAMILY))  # fmt: skip
