# SPDX-License-Identifier: Apache-2.0
"""What two engines made of the same tokens, in figures: where routes part, and what that costs in agreement.

A sampled token's probability comes from the position before it. That position's own route may differ between the
engines (`own`) or not (`rest`). Of the rest, some see a position with another route through attention (`before`),
others none (`same`). In the last layer a route matters to its own position alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from recipe.mismatch.alignment import Aligned

# The correlation below which a step counts as a dip.
DIP = 0.999
# The share of what the correlation lacks to 1 that must be gone when the actor takes the rollout's routes.
MOSTLY = 0.5
NO_DIP, ROUTES, OTHER = "no dip", "routing flips", "not routing"


@dataclass(frozen=True)
class Layer:
    """One layer, over the positions from which tokens were sampled.

    `flips`: share of them at which the engines chose other experts; None: a layer without experts. `first_flips`: the
    same where no earlier layer had. `margin`: by how much the last chosen expert's score was above the first not
    chosen one's, the median over all positions and over flips, the smaller one of both engines. `hidden`: distance of
    the residual streams behind the layer, relative to their length: median and largest, of positions without and
    with a flip of their own in this layer or an earlier one.
    """

    number: int
    flips: float | None
    first_flips: float | None
    margin: float | None
    margin_of_flips: float | None
    hidden_rest: tuple[float, float]
    hidden_flipped: tuple[float, float]


@dataclass(frozen=True)
class Tokens:
    """A part of the sampled tokens.

    `share`: of all. `loss_share`: of what the correlation lacks to 1. `pearson`: of these tokens alone.
    `mean_difference`, `largest_difference`: of the two probabilities, without sign. `kl`: mean of log p(rollout) -
    log p(actor), in nats.
    """

    share: float
    loss_share: float
    pearson: float
    mean_difference: float
    largest_difference: float
    largest_log_difference: float
    kl: float


@dataclass(frozen=True)
class Flip:
    """A position at which the engines chose other experts; `margins`: as for a layer, rollout's and actor's."""

    layer: int
    position: int
    rollout: tuple[int, ...]
    actor: tuple[int, ...]
    margins: tuple[float, float]


@dataclass(frozen=True)
class Token:
    """A sampled token; `copies` answers of the step have the same tokens up to it and differ as much.

    `position`: of the token, without padding. Log-probabilities of both engines, and of the actor with the rollout's
    routes. `loss_share`: as for a part, all copies together. `own`: flips of the position before it, from which it was
    sampled; `before`: those further back that it can see.
    """

    origin: tuple[int, int]
    position: int
    token: int
    context: tuple[int, ...]
    copies: int
    rollout: float
    actor: float
    replayed: float
    loss_share: float
    own: tuple[Flip, ...]
    before: tuple[Flip, ...]


@dataclass(frozen=True)
class Comparison:
    """One step.

    `spread`: the standard deviation of the rollout's probabilities, by which Pearson's figure is scaled. `replayed_`:
    with the actor's log-probabilities under the rollout's routes. `not_replayed`: positions and layers whose routers
    did not take them.
    """

    step: int
    tokens: int
    spread: float
    pearson: float
    kl: float
    replayed_pearson: float
    replayed_kl: float
    not_replayed: int
    own: Tokens
    rest: Tokens
    before: Tokens
    same: Tokens
    layers: tuple[Layer, ...]
    worst: tuple[Token, ...]

    @property
    def cause(self) -> str:
        """What a dip of the correlation comes from; NO_DIP where there is none."""
        if self.pearson >= DIP:
            return NO_DIP
        mended = 1 - (1 - self.replayed_pearson) / (1 - self.pearson)
        return ROUTES if mended > MOSTLY else OTHER

    def as_json(self) -> dict[str, Any]:
        """All figures; JSON has no number for what is none, which is null."""
        figures: dict[str, Any] = _without_nan({**dataclasses.asdict(self), "cause": self.cause})
        return figures


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def pearson(left: torch.Tensor, right: torch.Tensor) -> float:
    """The correlation of two vectors; NaN where one of them does not vary."""
    if len(left) < 2:
        return math.nan
    return float(torch.corrcoef(torch.stack([left.double(), right.double()]))[0, 1])


def loss_parts(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """What each element takes from the correlation: the parts add up to 1 - Pearson.

    With both vectors brought to mean 0 and variance 1, half of the mean square of their difference is 1 - Pearson.
    """
    left, right = (
        (values.double() - values.double().mean()) / values.double().std(unbiased=False) for values in (left, right)
    )
    return (left - right).square() / (2 * len(left))


def margins(scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """By how much the lowest score chosen is above the highest one not chosen; below 0 where groups have excluded it.

    Args:
        scores, chosen: [..., experts].
    """
    lowest = scores.masked_fill(~chosen, math.inf).amin(dim=-1)
    return lowest - scores.masked_fill(chosen, -math.inf).amax(dim=-1)


def compare(step: int, aligned: Aligned, worst: int) -> Comparison:
    """The figures of one step, with the `worst` tokens by what they take from the correlation."""
    return _Comparer(aligned).comparison(step, worst)


class _Comparer:
    """Flat views of the sampled tokens: `answer`, `source` (the position each was sampled from), and probabilities."""

    def __init__(self, aligned: Aligned) -> None:
        self._aligned = aligned
        self.answer, column = aligned.sampled.nonzero(as_tuple=True)
        self.source = aligned.prompt_length[self.answer] - 1 + column
        logs = (aligned.rollout_log_probs, aligned.actor_log_probs, aligned.replayed_log_probs)
        self.rollout, self.actor, self.replayed = (log[self.answer, column] for log in logs)
        self.loss = loss_parts(self.rollout.exp(), self.actor.exp())
        both = aligned.rollout.computed & aligned.actor.computed
        self.flips = {
            layer: (aligned.rollout.chosen[layer] != aligned.actor.chosen[layer]).any(dim=-1) & both
            for layer in aligned.layers_with_experts
        }
        self.last = max(aligned.actor.hidden)
        nowhere = torch.zeros_like(both)
        flipped = torch.stack([nowhere, *self.flips.values()]).any(dim=0)
        carried = torch.stack([nowhere, *(grid for layer, grid in self.flips.items() if layer < self.last)]).any(dim=0)
        self.own = flipped[self.answer, self.source]
        seen = (carried.cumsum(dim=1) > 0)[self.answer, self.source]
        self.before, self.same = seen & ~self.own, ~seen & ~self.own

    def comparison(self, step: int, worst: int) -> Comparison:
        rollout = self.rollout.exp()
        return Comparison(
            step=step,
            tokens=len(self.answer),
            spread=float(rollout.std(unbiased=False)),
            pearson=pearson(rollout, self.actor.exp()),
            kl=float((self.rollout - self.actor).mean()),
            replayed_pearson=pearson(rollout, self.replayed.exp()),
            replayed_kl=float((self.rollout - self.replayed).mean()),
            not_replayed=self._aligned.not_replayed,
            own=self._tokens(self.own),
            rest=self._tokens(~self.own),
            before=self._tokens(self.before),
            same=self._tokens(self.same),
            layers=tuple(self._layers()),
            worst=tuple(self._worst(worst)),
        )

    def _tokens(self, part: torch.Tensor) -> Tokens:
        rollout, actor = self.rollout[part], self.actor[part]
        differences = rollout.exp() - actor.exp()
        return Tokens(
            share=float(part.double().mean()),
            loss_share=float(self.loss[part].sum() / self.loss.sum()),
            pearson=pearson(rollout.exp(), actor.exp()),
            mean_difference=float(differences.abs().mean()) if part.any() else 0.0,
            largest_difference=_largest(differences),
            largest_log_difference=_largest(rollout - actor),
            kl=float((rollout - actor).mean()) if part.any() else 0.0,
        )

    def _layers(self) -> list[Layer]:
        aligned, at = self._aligned, (self.answer, self.source)
        layers, flipped = [], torch.zeros_like(self.own)
        for number in sorted(aligned.actor.hidden):
            figures: dict[str, float | None] = dict.fromkeys(("flips", "first_flips", "margin", "margin_of_flips"))
            if number in self.flips:
                flips = self.flips[number][at]
                nearest = torch.minimum(
                    *(
                        margins(one.scores[number][at], one.chosen[number][at])
                        for one in (aligned.rollout, aligned.actor)
                    )
                )
                figures = {
                    "flips": float(flips.double().mean()),
                    "first_flips": float((flips & ~flipped).double().mean()),
                    "margin": _median(nearest),
                    "margin_of_flips": _median(nearest[flips]),
                }
                flipped = flipped | flips
            left, right = (one.hidden[number][at].double() for one in (aligned.rollout, aligned.actor))
            distance = (left - right).norm(dim=-1) / right.norm(dim=-1)
            rest, other = ((_median(distance[part]), _largest(distance[part])) for part in (~flipped, flipped))
            layers.append(Layer(number, **figures, hidden_rest=rest, hidden_flipped=other))
        return layers

    def _worst(self, count: int) -> list[Token]:
        """The tokens that take the most, equal ones of answers with the same tokens so far as one."""
        groups: dict[tuple[object, ...], list[int]] = {}
        for number in self.loss.argsort(descending=True, stable=True).tolist():
            answer, source = int(self.answer[number]), int(self.source[number])
            key = (
                *self._aligned.tokens[answer, : source + 2].tolist(),
                float(self.rollout[number]),
                float(self.actor[number]),
            )
            groups.setdefault(key, []).append(number)
        ranked = sorted(groups.values(), key=lambda group: -float(self.loss[group].sum()))
        return [self._token(group) for group in ranked[:count]]

    def _token(self, group: Sequence[int]) -> Token:
        number = group[0]
        answer, source = int(self.answer[number]), int(self.source[number])
        flips = [
            self._flip(layer, answer, position)
            for layer, grid in self.flips.items()
            for position in grid[answer, : source + 1].nonzero().flatten().tolist()
            if position == source or layer < self.last
        ]
        return Token(
            origin=self._aligned.origins[answer],
            position=source + 1,
            token=int(self._aligned.tokens[answer, source + 1]),
            context=tuple(self._aligned.tokens[answer, : source + 1].tolist()),
            copies=len(group),
            rollout=float(self.rollout[number]),
            actor=float(self.actor[number]),
            replayed=float(self.replayed[number]),
            loss_share=float(self.loss[list(group)].sum() / self.loss.sum()),
            own=tuple(flip for flip in flips if flip.position == source),
            before=tuple(flip for flip in flips if flip.position < source),
        )

    def _flip(self, layer: int, answer: int, position: int) -> Flip:
        engines = (self._aligned.rollout, self._aligned.actor)
        chosen = [engine.chosen[layer][answer, position] for engine in engines]
        scores = [engine.scores[layer][answer, position] for engine in engines]
        rollout, actor = (tuple(one.nonzero().flatten().tolist()) for one in chosen)
        nearness = [float(margins(score, one)) for score, one in zip(scores, chosen, strict=True)]
        return Flip(layer, position, rollout, actor, (nearness[0], nearness[1]))


def _median(values: torch.Tensor) -> float:
    return float(values.median()) if values.numel() else math.nan


def _largest(values: torch.Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0
