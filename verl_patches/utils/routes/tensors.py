# SPDX-License-Identifier: Apache-2.0
"""The tensors of a DeepSeek-V3 model by their Hugging Face names, and the parameters of both engines that hold them.

Both engines cut a tensor along the same axis, if they cut it: rows where a linear layer's outputs are spread, columns
where its inputs are. So a slice of a tensor is a run of indices along that axis, whichever engine holds it. Sources:
verl/models/mcore/weight_converter.py (`McoreToHFWeightConverterDpskv3`), megatron/core/models/gpt/gpt_layer_specs.py,
vllm_ascend/models/deepseek_v2.py.
"""

# NPU-ADAPTATION: a die is sent only the weights that it lacks: the tensors of the model

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from verl_patches.utils.routes.layouts import ActorLayout, LayoutError, RolloutLayout

FP32 = 4
VOCABULARY_STEP = 64  # vllm: DEFAULT_VOCAB_PADDING_SIZE


class Sizes(Protocol):
    """The sizes of a model, as `LatentArchitecture` of recipe/models/architecture.py has them."""

    @property
    def layers(self) -> int: ...
    @property
    def dense_layers(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def q_lora_rank(self) -> int | None: ...
    @property
    def kv_lora_rank(self) -> int: ...
    @property
    def qk_nope_head_dim(self) -> int: ...
    @property
    def qk_rope_head_dim(self) -> int: ...
    @property
    def v_head_dim(self) -> int: ...
    @property
    def dense_intermediate(self) -> int: ...
    @property
    def moe_intermediate(self) -> int: ...
    @property
    def experts(self) -> int: ...
    @property
    def shared_experts(self) -> int: ...
    @property
    def vocabulary(self) -> int: ...


SIZE_NAMES = tuple(sorted(name for name, value in vars(Sizes).items() if isinstance(value, property)))


@dataclass(frozen=True, slots=True)
class Holder:
    """How one engine holds a tensor: in a parameter, alone or as one of several blocks along the tensor's axis.

    `parameter`: its name, with the layer's number in the whole model; `split`: over the engine's tensor parallel
    ranks; `block`: number of the block, of blocks of equal size.
    """

    parameter: str
    split: bool = False
    block: int = 0


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor by its Hugging Face name.

    `axis`: along which it is cut; `item_bytes`: of an element as it travels, which is the actor's type (what the
    rollout keeps in another type, as its router, is converted on arrival); `expert`: number of the routed expert;
    `padded`: the rollout's slices are those of a tensor padded to a multiple of `VOCABULARY_STEP`.
    """

    name: str
    shape: tuple[int, ...]
    axis: int
    item_bytes: int
    actor: Holder
    rollout: Holder
    expert: int | None = None
    padded: bool = False

    @property
    def length(self) -> int:
        """Indices along the axis."""
        return self.shape[self.axis]

    @property
    def index_bytes(self) -> int:
        """Bytes of what lies at one index of the axis."""
        return math.prod(self.shape) // self.shape[self.axis] * self.item_bytes

    def actor_range(self, actor: ActorLayout, tensor_rank: int) -> range:
        """The indices that an actor's tensor parallel rank holds."""
        return _share(self.length, actor.tensor, tensor_rank) if self.actor.split else range(self.length)

    def rollout_range(self, rollout: RolloutLayout, tensor_rank: int) -> range:
        """The indices that a rollout's tensor parallel rank holds; of a padded tensor those that are no padding."""
        if not self.rollout.split:
            return range(self.length)
        share = _share(self.length_in_rollout, rollout.tensor, tensor_rank)
        return range(min(share.start, self.length), min(share.stop, self.length))

    def rollout_length(self, rollout: RolloutLayout) -> int:
        """Indices that every rank of the rollout has, padding among them."""
        return self.length_in_rollout // (rollout.tensor if self.rollout.split else 1)

    @property
    def length_in_rollout(self) -> int:
        """Indices along the axis with those that pad it."""
        return -(-self.length // VOCABULARY_STEP) * VOCABULARY_STEP if self.padded else self.length


def _share(length: int, ranks: int, rank: int) -> range:
    each = length // ranks
    return range(rank * each, (rank + 1) * each)


@dataclass(frozen=True)
class Model:
    """The tensors of a model; `item_bytes`: of a weight of the actor."""

    sizes: Sizes
    item_bytes: int = 2

    def first_tensors(self) -> Iterator[Tensor]:
        """Of the first pipeline stage, beside its layers."""
        yield self._vocabulary("model.embed_tokens.weight", "embedding.word_embeddings.weight")

    def last_tensors(self) -> Iterator[Tensor]:
        """Of the last pipeline stage, beside its layers."""
        yield self._whole("model.norm.weight", (self.sizes.hidden,), "decoder.final_layernorm.weight")
        yield self._vocabulary("lm_head.weight", "output_layer.weight")

    def layer_tensors(self, layer: int, rollout: RolloutLayout) -> Iterator[Tensor]:
        """Of a layer (counted from 0), without its routed experts."""
        hf, mcore, s = f"model.layers.{layer}.", f"decoder.layers.{layer}.", self.sizes
        attn, to = hf + "self_attn.", mcore + "self_attention."
        queries, keys_values = s.qk_nope_head_dim + s.qk_rope_head_dim, s.qk_nope_head_dim + s.v_head_dim
        yield self._whole(hf + "input_layernorm.weight", (s.hidden,), mcore + "input_layernorm.weight")
        projections, norms = [], []
        if s.q_lora_rank is None:
            projections.append(("q_proj", s.heads * queries, s.hidden, "linear_q_proj", False))
        else:
            projections.append(("q_a_proj", s.q_lora_rank, s.hidden, "linear_q_down_proj", True))
            projections.append(("q_b_proj", s.heads * queries, s.q_lora_rank, "linear_q_up_proj", False))
            norms.append(("q_a_layernorm", s.q_lora_rank, "linear_q_up_proj"))
        for name, rows, columns, linear, whole_in_rollout in (
            *projections,
            ("kv_a_proj_with_mqa", s.kv_lora_rank + s.qk_rope_head_dim, s.hidden, "linear_kv_down_proj", True),
            ("kv_b_proj", s.heads * keys_values, s.kv_lora_rank, "linear_kv_up_proj", False),
        ):
            hf_name = f"{attn}{name}.weight"
            yield Tensor(
                hf_name, (rows, columns), 0, self.item_bytes,
                Holder(f"{to}{linear}.weight", True), Holder(hf_name, not whole_in_rollout),
            )  # fmt: skip
        for name, rank, linear in (*norms, ("kv_a_layernorm", s.kv_lora_rank, "linear_kv_up_proj")):
            yield self._whole(f"{attn}{name}.weight", (rank,), f"{to}{linear}.layer_norm_weight")
        yield self._row_parallel(
            attn + "o_proj.weight", (s.hidden, s.heads * s.v_head_dim), to + "linear_proj.weight", True
        )
        after = hf + "post_attention_layernorm.weight"
        if layer < s.dense_layers:
            yield self._whole(after, (s.hidden,), mcore + "mlp.linear_fc1.layer_norm_weight")
            yield from self._gated(hf + "mlp", mcore + "mlp", s.dense_intermediate, True)
            return
        yield self._whole(after, (s.hidden,), mcore + "pre_mlp_layernorm.weight")
        gate = hf + "mlp.gate."
        yield self._whole(gate + "weight", (s.experts, s.hidden), mcore + "mlp.router.weight")
        bias = gate + "e_score_correction_bias"
        # Megatron-core keeps it in float32, once a forward pass has made it so.
        yield Tensor(bias, (s.experts,), 0, FP32, Holder(mcore + "mlp.router.expert_bias"), Holder(bias))
        if s.shared_experts:
            width, shared = s.shared_experts * s.moe_intermediate, "mlp.shared_experts"
            yield from self._gated(hf + shared, mcore + shared, width, not rollout.replicated_shared)

    def expert_tensors(self, layer: int, expert: int) -> tuple[Tensor, ...]:
        """Of one routed expert, by its number in the layer."""
        s, hf, mcore = self.sizes, f"model.layers.{layer}.mlp.experts.", f"decoder.layers.{layer}.mlp.experts."
        rows, columns = (s.moe_intermediate, s.hidden), (s.hidden, s.moe_intermediate)
        fc1, fc2 = mcore + "linear_fc1.weight", mcore + "linear_fc2.weight"
        w13, w2 = hf + "w13_weight", hf + "w2_weight"

        def tensor(name: str, shape: tuple[int, int], actor: Holder, rollout: Holder) -> Tensor:
            return Tensor(f"{hf}{expert}.{name}.weight", shape, 0, self.item_bytes, actor, rollout, expert)

        return (
            tensor("gate_proj", rows, Holder(fc1), Holder(w13)),
            tensor("up_proj", rows, Holder(fc1, block=1), Holder(w13, block=1)),
            tensor("down_proj", columns, Holder(fc2), Holder(w2)),
        )

    def check(self, actor: ActorLayout, rollout: RolloutLayout) -> None:
        """Raises LayoutError where the layers are not the model's, or a tensor cannot be cut as a layout asks."""
        if sum(actor.stage_layers) != self.sizes.layers:
            raise LayoutError(
                f"the stages have {sum(actor.stage_layers)} layers together, the model {self.sizes.layers}"
            )
        kinds = {0, self.sizes.layers - 1}
        tensors = [*self.first_tensors(), *self.last_tensors()]
        tensors += [tensor for layer in kinds for tensor in self.layer_tensors(layer, rollout)]
        for tensor in tensors:
            for engine, split, ranks, size in (
                ("actor", tensor.actor.split, actor.tensor, tensor.length),
                ("rollout", tensor.rollout.split, rollout.tensor, tensor.length_in_rollout),
            ):
                if split and size % ranks:
                    raise LayoutError(
                        f"{tensor.name}: {size} along axis {tensor.axis} cannot be cut over the {engine}'s tensor "
                        f"parallel {ranks}"
                    )

    def _whole(self, name: str, shape: tuple[int, ...], parameter: str) -> Tensor:
        return Tensor(name, shape, 0, self.item_bytes, Holder(parameter), Holder(name))

    def _vocabulary(self, name: str, parameter: str) -> Tensor:
        shape = (self.sizes.vocabulary, self.sizes.hidden)
        return Tensor(name, shape, 0, self.item_bytes, Holder(parameter, True), Holder(name, True), padded=True)

    def _row_parallel(self, name: str, shape: tuple[int, int], parameter: str, split: bool) -> Tensor:
        return Tensor(name, shape, 1, self.item_bytes, Holder(parameter, True), Holder(name, split))

    def _gated(self, hf: str, mcore: str, width: int, split: bool) -> Iterator[Tensor]:
        """Gate, up and down projections; linear_fc1 and gate_up_proj have the rank's gate, then its up."""
        hidden = self.sizes.hidden
        fc1, gate_up = f"{mcore}.linear_fc1.weight", f"{hf}.gate_up_proj.weight"
        for block, name in enumerate(("gate_proj", "up_proj")):
            yield Tensor(
                f"{hf}.{name}.weight", (width, hidden), 0, self.item_bytes,
                Holder(fc1, True, block), Holder(gate_up, split, block),
            )  # fmt: skip
        yield self._row_parallel(f"{hf}.down_proj.weight", (hidden, width), f"{mcore}.linear_fc2.weight", split)
