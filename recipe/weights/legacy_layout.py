# SPDX-License-Identifier: Apache-2.0
"""The tensors of each rank of a legacy checkpoint, as blocks of Hugging Face tensors; nothing is read here.

Names and cuts are those MindSpeed-LLM's converter writes and its modules declare (examples/mcore/deepseek3/
convert_ckpt_deepseek3.py; MultiHeadLatentAttention: linear_qkv on every rank whole, the up-projections by rows, the
output projection by columns; GroupedMLP: weight1 is seen as [experts, hidden, 2 size], weight2 as [experts, size,
hidden]). File names are Megatron-LM's (`get_checkpoint_name`, megatron/training/checkpointing.py at core_v0.12.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from recipe.weights.legacy_options import LegacyOptions, stages

ITERATION = 1
# Names of the up-projections of queries, and of keys and values, and of the norm before the latter.
_ATTENTION = {
    "2.1": ("linear_qb", "linear_kvb", "k_layernorm"),
    "2.2": ("linear_q_up_proj", "linear_kv_up_proj", "kv_layernorm"),
}
DIRECTORY = f"iter_{ITERATION:07d}"
TRACKER = "latest_checkpointed_iteration.txt"


@dataclass(frozen=True)
class Block:
    """Rows [first, first + rows) and columns [column, column + columns) of a Hugging Face tensor.

    A tensor with one axis has columns of one element.
    """

    tensor: str
    first: int
    rows: int
    column: int
    columns: int


@dataclass(frozen=True)
class BlockStack:
    """Blocks one below the other whose bytes follow each other in a legacy tensor, transposed together or not at all.

    The blocks of a transposed stack have the same columns.
    """

    blocks: tuple[Block, ...]
    transposed: bool = False

    @property
    def elements(self) -> int:
        return sum(block.rows * block.columns for block in self.blocks)


@dataclass(frozen=True)
class LegacyTensor:
    """A tensor of a rank: the stacks one after the other in row-major order."""

    name: str
    shape: tuple[int, ...]
    stacks: tuple[BlockStack, ...]


@dataclass(frozen=True)
class Rank:
    """One file of the checkpoint; layers are those of its pipeline stage, numbered over the whole model."""

    tensor: int
    pipeline: int
    expert: int
    layers: range


def ranks(options: LegacyOptions, config: dict[str, Any]) -> list[Rank]:
    """Every rank, those of a stage together, so that a stage is read from disk once; raises WeightsError."""
    dealt = stages(options, config)
    return [
        Rank(tensor, pipeline, expert, layers)
        for pipeline, layers in enumerate(dealt)
        for expert in range(options.expert)
        for tensor in range(options.tensor)
    ]


def file_name(rank: Rank, options: LegacyOptions) -> str:
    """The rank's file below the checkpoint."""
    stage = f"_{rank.pipeline:03d}" if options.pipeline > 1 else ""
    expert = f"_{rank.expert:03d}" if options.expert > 1 else ""
    return f"{DIRECTORY}/mp_rank_{rank.tensor:02d}{stage}{expert}/model_optim_rng.pt"


def rank_tensors(rank: Rank, options: LegacyOptions, config: dict[str, Any]) -> list[LegacyTensor]:
    """The tensors of one rank, in the order in which they stand in its file."""
    return list(_RankPlan(rank, options, config).tensors())


class _RankPlan:
    """Cuts the tensors for one rank; sizes in elements."""

    def __init__(self, rank: Rank, options: LegacyOptions, config: dict[str, Any]) -> None:
        self.rank, self.options, self.config = rank, options, config
        self.hidden: int = config["hidden_size"]

    def tensors(self) -> Iterator[LegacyTensor]:
        vocabulary = self.config["vocab_size"]
        if self.rank.pipeline == 0:
            yield self._rows("embedding.word_embeddings.weight", "model.embed_tokens.weight", vocabulary, self.hidden)
        for local, number in enumerate(self.rank.layers):
            yield from self._layer(f"decoder.layers.{local}.", f"model.layers.{number}.", number)
        if self.rank.pipeline == self.options.pipeline - 1:
            yield _vector("decoder.final_layernorm.weight", "model.norm.weight", self.hidden)
            yield self._rows("output_layer.weight", "lm_head.weight", vocabulary, self.hidden)

    def _layer(self, to: str, hf: str, number: int) -> Iterator[LegacyTensor]:
        yield _vector(to + "input_layernorm.weight", hf + "input_layernorm.weight", self.hidden)
        yield _vector(to + "pre_mlp_layernorm.weight", hf + "post_attention_layernorm.weight", self.hidden)
        yield from self._attention(to + "self_attention.", hf + "self_attn.")
        if number < self.config["first_k_dense_replace"]:
            yield from self._gated_mlp(to + "mlp.", hf + "mlp.", self.config["intermediate_size"])
        else:
            yield from self._moe(to + "mlp.", hf + "mlp.")

    def _attention(self, to: str, hf: str) -> Iterator[LegacyTensor]:
        config, hidden = self.config, self.hidden
        q_rank, kv_rank, heads = config["q_lora_rank"], config["kv_lora_rank"], config["num_attention_heads"]
        nope, rope, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
        q_up, kv_up, kv_norm = _ATTENTION[self.options.mindspeed_llm]
        down = (
            Block(hf + "q_a_proj.weight", 0, q_rank, 0, hidden),
            Block(hf + "kv_a_proj_with_mqa.weight", 0, kv_rank + rope, 0, hidden),
        )
        yield LegacyTensor(to + "linear_qkv.weight", (q_rank + kv_rank + rope, hidden), (BlockStack(down),))
        yield self._columns(to + "linear_proj.weight", hf + "o_proj.weight", hidden, heads * value)
        yield _vector(to + "q_layernorm.weight", hf + "q_a_layernorm.weight", q_rank)
        yield _vector(f"{to}{kv_norm}.weight", hf + "kv_a_layernorm.weight", kv_rank)
        q_b, kv_b = hf + "q_b_proj.weight", hf + "kv_b_proj.weight"
        if self.options.mla_mm_split:
            yield self._of_heads(to + "linear_qk_nope.weight", q_b, nope + rope, 0, nope, q_rank)
            yield self._of_heads(to + "linear_qk_rope.weight", q_b, nope + rope, nope, rope, q_rank)
            yield self._of_heads(to + "linear_kv_nope.weight", kv_b, nope + value, 0, nope, kv_rank)
            yield self._of_heads(to + "linear_v.weight", kv_b, nope + value, nope, value, kv_rank)
        else:
            yield self._rows(f"{to}{q_up}.weight", q_b, heads * (nope + rope), q_rank)
            yield self._rows(f"{to}{kv_up}.weight", kv_b, heads * (nope + value), kv_rank)

    def _moe(self, to: str, hf: str) -> Iterator[LegacyTensor]:
        config = self.config
        experts, size = config["n_routed_experts"], config["moe_intermediate_size"]
        router = Block(hf + "gate.weight", 0, experts, 0, self.hidden)
        yield LegacyTensor(to + "router.weight", (experts, self.hidden), (BlockStack((router,)),))
        yield _vector(to + "router.expert_bias", hf + "gate.e_score_correction_bias", experts)
        if shared := config.get("n_shared_experts"):
            yield from self._gated_mlp(to + "shared_experts.", hf + "shared_experts.", size * shared)
        if self.options.grouped_gemm:
            yield from self._grouped_experts(to + "experts.", hf + "experts.", size)
        else:
            for local, expert in enumerate(self._experts()):
                at = f"{to}experts.local_experts.{local}."
                yield from self._gated_mlp(at, f"{hf}experts.{expert}.", size)

    def _experts(self) -> range:
        """The experts of this rank."""
        count = self.config["n_routed_experts"] // self.options.expert_ranks
        place = self.rank.expert
        if self.options.tp_extend_ep:
            place = place * self.options.tensor + self.rank.tensor
        return range(place * count, (place + 1) * count)

    def _grouped_experts(self, to: str, hf: str, size: int) -> Iterator[LegacyTensor]:
        experts = self._experts()
        part = size // self.options.expert_slices
        at = 0 if self.options.tp_extend_ep else self.rank.tensor * part
        first, second = [], []
        for expert in experts:
            name = f"{hf}{expert}."
            gate = Block(name + "gate_proj.weight", at, part, 0, self.hidden)
            up = Block(name + "up_proj.weight", at, part, 0, self.hidden)
            first.append(BlockStack((gate, up), transposed=True))
            second.append(BlockStack((Block(name + "down_proj.weight", 0, self.hidden, at, part),), transposed=True))
        yield LegacyTensor(to + "weight1", (self.hidden, len(experts) * 2 * part), tuple(first))
        yield LegacyTensor(to + "weight2", (len(experts) * part, self.hidden), tuple(second))

    def _gated_mlp(self, to: str, hf: str, size: int) -> Iterator[LegacyTensor]:
        """linear_fc1: this rank's rows of gate, then its rows of up; linear_fc2: its columns of down."""
        part = size // self.options.tensor
        blocks = tuple(
            Block(f"{hf}{name}.weight", self.rank.tensor * part, part, 0, self.hidden)
            for name in ("gate_proj", "up_proj")
        )
        yield LegacyTensor(to + "linear_fc1.weight", (2 * part, self.hidden), (BlockStack(blocks),))
        yield self._columns(to + "linear_fc2.weight", hf + "down_proj.weight", self.hidden, size)

    def _rows(self, to: str, hf: str, rows: int, columns: int) -> LegacyTensor:
        part = rows // self.options.tensor
        block = Block(hf, self.rank.tensor * part, part, 0, columns)
        return LegacyTensor(to, (part, columns), (BlockStack((block,)),))

    def _columns(self, to: str, hf: str, rows: int, columns: int) -> LegacyTensor:
        part = columns // self.options.tensor
        block = Block(hf, 0, rows, self.rank.tensor * part, part)
        return LegacyTensor(to, (rows, part), (BlockStack((block,)),))

    def _of_heads(self, to: str, hf: str, stride: int, at: int, rows: int, columns: int) -> LegacyTensor:
        """Rows [at, at + rows) of each of this rank's heads; a head has `stride` rows."""
        heads = self.config["num_attention_heads"] // self.options.tensor
        first = self.rank.tensor * heads
        blocks = tuple(Block(hf, head * stride + at, rows, 0, columns) for head in range(first, first + heads))
        return LegacyTensor(to, (heads * rows, columns), (BlockStack(blocks),))


def _vector(to: str, hf: str, size: int) -> LegacyTensor:
    return LegacyTensor(to, (size,), (BlockStack((Block(hf, 0, size, 0, 1),)),))
