# SPDX-License-Identifier: Apache-2.0
"""Routers that take the sampler's choice of experts, and weigh the experts by the trainer's own scores.

For a token with logits z the router has scores s = sigmoid(z), chooses the set K of the k experts with the largest
s + b (b: the expert bias; groups of experts may limit the choice), and weighs its members by

    w_i = c * s_i / sum(s_j for j in K), i in K

with a constant c. The choice is piecewise constant in z, so that Megatron-core lets no gradient through it: b and the
groups have no part in w, and dw_i/dz_l = w_i * (delta_il - s_l / sum) * (1 - s_l) for l in K, 0 elsewhere. With a given
K in the place of the router's own, w and its derivative are the same functions of z and K. It is the derivative of the
policy that sampled: the answer was drawn from the network in which these experts were chosen, and that network, not one
with other experts, is what the importance ratio and the policy gradient speak of.

K is given by the bias alone: a token's chosen experts get a bias that no score can outweigh, and everything else is
the router's own code, whatever it is. The auxiliary losses and the counts for the bias's update then see the experts
that the tokens really went to. A token without a choice keeps the router's own: padding, and an answer's last token,
which the sampler never computes, and behind which the trainer needs no log-probability. The choice of a token goes by
its position in verl's packed micro batch.

A layer that is computed again for the backward pass needs the choices of its micro batch once more, when others have
been begun since. Its routers run twice in an update, first without gradients, and the backward passes of a stage come
in the order of its forward passes: what was given first without gradients is the first to be given again.
"""

# NPU-ADAPTATION: routers take the sampler's choice of experts

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from recipe.report.metrics import FLIPS, REPLAYED

# Added to the scores of the experts that a router is to choose: scores are between 0 and 1, biases not much larger.
CHOSEN_FOR_SURE = 1000.0
# In the place of an expert, where no choice is known.
UNKNOWN = -1

OWN = "training/routing_own"


class Replay:
    """The choices of one pass over a batch, forward only or with the update's backward, in one process."""

    def __init__(self, choices: Sequence[np.ndarray], layers: Sequence[int], here: Sequence[int], device: Any) -> None:
        """For the answers of a batch.

        Args:
            choices: of each answer [tokens, len(layers), experts per token].
            layers: the numbers of all layers with experts, as routers have them (from 1).
            here: those that this process has.
            device: the trainer's.

        Raises:
            ValueError: the choices are those of another number of layers.
        """
        if wrong := {one.shape[1] for one in choices} - {len(layers)}:
            raise ValueError(f"the rollout chose experts in {sorted(wrong)} layers, the actor has {len(layers)}")
        self._choices = choices
        self._columns = [layers.index(layer) for layer in here]
        self._place = {layer: place for place, layer in enumerate(here)}
        self._device = device
        self._given = torch.empty(0)
        self._awaited: dict[int, deque[torch.Tensor]] = {layer: deque() for layer in here}

    def begin(self, answers: Sequence[int], lengths: Sequence[int], multiple: int, part: tuple[int, int]) -> None:
        """Begin a micro batch.

        Args:
            answers: its answers, by their place in the batch.
            lengths: how many tokens each has, prompt and answer.
            multiple: the packed length of each is padded to a multiple of this.
            part: (i, n): this process has the i-th of n equal parts of the packed tokens.

        Raises:
            ValueError: the choices of a token other than an answer's last are missing.
        """
        ends = np.cumsum([-(-length // multiple) * multiple for length in lengths]).tolist()
        like = self._choices[0]
        packed = np.full((ends[-1], len(self._columns), like.shape[2]), UNKNOWN, np.int16)
        for answer, length, start in zip(answers, lengths, [0, *ends], strict=False):
            known = self._choices[answer][:length, self._columns]
            if len(known) < length - 1:
                raise ValueError(f"an answer of {length} tokens has the choices of {len(known)}, expected {length - 1}")
            packed[start : start + len(known)] = known
        index, parts = part
        size = len(packed) // parts
        self._given = torch.from_numpy(packed[index * size : (index + 1) * size]).to(self._device)

    def has(self, layer: int) -> bool:
        return layer in self._place

    def choice(self, layer: int, *, updating: bool) -> tuple[torch.Tensor, bool]:
        """The choice for the tokens that a layer's router is about to see, and whether it sees them for the first time.

        Args:
            layer: the router's layer number.
            updating: whether a backward pass follows.

        Returns:
            int16 [tokens, experts per token], UNKNOWN where none is known; and a bool.
        """
        awaited, given, first = self._awaited[layer], self._given, True
        if updating and not torch.is_grad_enabled():
            awaited.append(given)
        elif updating and awaited:
            given, first = awaited.popleft(), False
        return given[:, self._place[layer]], first

    def require_done(self) -> None:
        """Raise RuntimeError if a layer that was to be computed again was not."""
        if left := {layer: len(queue) for layer, queue in self._awaited.items() if queue}:
            raise RuntimeError(f"choices of experts left over after the backward pass, by layer: {left}")


class _Counts:
    """Of the (token, layer) pairs since the last report: known, followed, flips, without a choice; on the device."""

    def __init__(self) -> None:
        self._sums: torch.Tensor | None = None

    def add(self, *values: torch.Tensor) -> None:
        sums = torch.stack(values)
        self._sums = sums if self._sums is None else self._sums + sums

    def take(self, device: Any) -> list[int]:
        """The counts of all processes of the default group, each of which must call it; they begin at 0 again."""
        sums = torch.zeros(4, dtype=torch.int64, device=device) if self._sums is None else self._sums
        self._sums = None
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        counted: list[int] = sums.tolist()
        return counted


_counts = _Counts()
_replay: Replay | None = None
_updating = False


@contextmanager
def replaying(replay: Replay, *, updating: bool) -> Iterator[None]:
    """Within the block the routers of this process take the choices of `replay`."""
    global _replay, _updating
    before = _replay, _updating
    _replay, _updating = replay, updating
    try:
        yield
    finally:
        _replay, _updating = before
    replay.require_done()


def replay_for(layer: int) -> Replay | None:
    """What replays the choices of this layer now, if anything does."""
    return _replay if _replay is not None and _replay.has(layer) else None


def routed(original: Any, router: Any, logits: torch.Tensor, replay: Replay) -> tuple[torch.Tensor, torch.Tensor]:
    """What the router's `routing` returns, with the given choice, counted.

    Raises:
        NotImplementedError: the router's scores are no sigmoid.
        RuntimeError: the choices are those of another number of tokens.
    """
    if router.score_function != "sigmoid":
        raise NotImplementedError(
            f'train.routing_replay = "rollout" with moe_router_score_function = "{router.score_function}": only a '
            "sigmoid's choice goes by a bias"
        )
    given, first = replay.choice(router.layer_number, updating=_updating)
    if len(given) != (tokens := logits.shape[:-1].numel()):
        raise RuntimeError(f"layer {router.layer_number} routes {tokens} tokens, and has the choices of {len(given)}")
    chosen, known = as_mask(given, router.num_experts)
    own = None
    if first:
        with torch.no_grad():
            own = original(router, logits.detach())[1]
    with choosing(router, chosen):
        output: tuple[torch.Tensor, torch.Tensor] = original(router, logits)
    if own is not None:
        followed, same = ((one == chosen).all(dim=-1) & known for one in (output[1], own))
        total = known.sum()
        _counts.add(total, followed.sum(), total - same.sum(), (~known).sum())
    return output


def as_mask(given: torch.Tensor, experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """bool [tokens, experts]: which are chosen; bool [tokens]: of which tokens that is known."""
    known = given[:, 0] != UNKNOWN
    chosen = torch.zeros(len(given), experts, dtype=torch.bool, device=given.device)
    return chosen.scatter_(1, given.clamp(min=0).long(), True) & known[:, None], known


@contextmanager
def choosing(router: Any, chosen: torch.Tensor) -> Iterator[None]:
    """Within the block the router chooses these experts, bool [tokens, experts]; its own for tokens without any."""
    bias = router.expert_bias
    router.expert_bias = chosen.float() * CHOSEN_FOR_SURE + (0.0 if bias is None else bias)
    try:
        yield
    finally:
        router.expert_bias = bias


def take_metrics(device: Any) -> dict[str, float]:
    """The shares since the last call, of all processes, each of which must call it; empty where nothing was replayed.

    `training/routing_replayed`: of the (token, layer) pairs with a choice of the sampler's, those in which the router
    took exactly these experts. `training/routing_flips`: those in which it would have taken others by itself.
    `training/routing_own`: of all pairs, those without a choice of the sampler's. Each pass counts, and a layer that
    is computed again for the backward pass counts once.
    """
    known, followed, flips, without = _counts.take(device)
    if not known:
        return {}
    return {REPLAYED: followed / known, FLIPS: flips / known, OWN: without / (known + without)}
