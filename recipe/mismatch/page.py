# SPDX-License-Identifier: Apache-2.0
"""A comparison as lines of text: a page for one step, a table for several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from recipe.mismatch.comparison import Comparison, Flip, Token, Tokens
from recipe.mismatch.guard import beyond

# The text of a sequence of tokens.
Decode = Callable[[Sequence[int]], str]
_FLIPS_SHOWN = 4
_CONTEXT_SHOWN = 60


def page(comparison: Comparison, decode: Decode) -> list[str]:
    """One step, in full."""
    one = comparison
    return [
        f"step {one.step}: {one.tokens} sampled tokens; cause: {one.cause}",
        *_table(
            ("", "Pearson", "1 - Pearson", "KL (nats)"),
            [
                ("rollout and actor", _pearson(one.pearson), _loss(one.pearson), f"{one.kl:.1e}"),
                (
                    "with the rollout's routes",
                    _pearson(one.replayed_pearson),
                    _loss(one.replayed_pearson),
                    f"{one.replayed_kl:.1e}",
                ),
            ],
        ),
        *_not_replayed(one.not_replayed),
        f"standard deviation of the rollout's probabilities: {one.spread:.3f}",
        *(f"beyond the guard: {line}" for line in beyond(one)),
        "",
        "sampled tokens by their routes",
        *_table(
            ("", "share", "of 1 - Pearson", "Pearson", "mean |dp|", "largest |dp|", "largest |dlogp|", "KL (nats)"),
            [
                _part("another route at the position itself", one.own),
                _part("the same route there", one.rest),
                _part("- and another further back", one.before),
                _part("- and the same everywhere", one.same),
            ],
        ),
        "",
        "layers, at the positions from which tokens were sampled",
        *_table(
            ("layer", "flips", "first here", "margin", "of flips", "hidden: rest", "largest", "flipped", "largest"),
            [
                (
                    str(layer.number),
                    *(("-",) * 4 if layer.flips is None else (
                        _percent(layer.flips), _percent(layer.first_flips), _small(layer.margin),
                        _small(layer.margin_of_flips),
                    )),
                    *(_small(value) for value in (*layer.hidden_rest, *layer.hidden_flipped)),
                )
                for layer in one.layers
            ],
        ),
        "",
        "the tokens that take most from Pearson",
        *(line for token in one.worst for line in _token(token, decode)),
    ]  # fmt: skip


def _not_replayed(count: int) -> list[str]:
    return (
        [f"the actor's routers did not take {count} of the rollout's routes: their replay says little"] if count else []
    )


def sweep(comparisons: Iterable[Comparison]) -> list[str]:
    """Several steps, a line each."""
    head = (
        "step",
        "Pearson",
        "replayed",
        "KL (nats)",
        "flips",
        "of 1 - Pearson",
        "the rest",
        "its mean |dp|",
        "largest",
        "guard",
        "cause",
    )
    rows = [
        (
            str(one.step), _pearson(one.pearson), _pearson(one.replayed_pearson), f"{one.kl:.1e}",
            _percent(one.own.share), _percent(one.own.loss_share), _pearson(one.rest.pearson),
            f"{one.rest.mean_difference:.4f}", f"{one.rest.largest_difference:.3f}",
            "beyond" if beyond(one) else "within", one.cause,
        )
        for one in comparisons
    ]  # fmt: skip
    return _table(head, rows)


def _part(name: str, part: Tokens) -> tuple[str, ...]:
    return (
        name, _percent(part.share), _percent(part.loss_share), _pearson(part.pearson),
        f"{part.mean_difference:.4f}", f"{part.largest_difference:.3f}", f"{part.largest_log_difference:.3f}",
        f"{part.kl:.1e}",
    )  # fmt: skip


def _token(token: Token, decode: Decode) -> list[str]:
    rank, row = token.origin
    context = decode(token.context)
    beginning = "..." if len(context) > _CONTEXT_SHOWN else ""
    copies = f", in {token.copies} answers that are equal so far" if token.copies > 1 else ""
    probabilities = [f"{10 ** (value * 0.4342944819):.4f}" for value in (token.rollout, token.actor, token.replayed)]
    return [
        f"  {_percent(token.loss_share)} of it: token {token.position} of answer {rank}:{row}{copies}: "
        f"{decode((token.token,))!r} behind {beginning}{context[-_CONTEXT_SHOWN:]!r}",
        f"    p: rollout {probabilities[0]}, actor {probabilities[1]}, actor with the rollout's routes "
        f"{probabilities[2]}",
        *(f"    {line}" for line in _flips(token)),
    ]


def _flips(token: Token) -> list[str]:
    flips = [*token.own, *token.before]
    lines = [_flip(flip, token.position - 1) for flip in flips[:_FLIPS_SHOWN]]
    if len(flips) > _FLIPS_SHOWN:
        lines.append(f"and {len(flips) - _FLIPS_SHOWN} more")
    return lines or ["the same experts here, and wherever it could matter further back"]


def _flip(flip: Flip, source: int) -> str:
    where = "here" if flip.position == source else f"at position {flip.position}"
    both = set(flip.rollout) & set(flip.actor)
    rollout, actor = (sorted(set(one) - both) for one in (flip.rollout, flip.actor))
    left, right = flip.margins
    return (
        f"layer {flip.layer} {where}: rollout {_experts(rollout)} (margin {left:.1e}), actor {_experts(actor)} "
        f"(margin {right:.1e}), both {_experts(sorted(both))}"
    )


def _experts(numbers: Sequence[int]) -> str:
    return "{" + ", ".join(map(str, numbers)) + "}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}%"


def _small(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4f}" if value >= 0.001 else f"{value:.1e}"


def _pearson(value: float) -> str:
    return "-" if value != value else f"{value:.5f}"


def _loss(value: float) -> str:
    return "-" if value != value else f"{1 - value:.1e}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they need to be, the first to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    return [
        "  " + "  ".join(cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in
                         enumerate(zip(row, widths, strict=True))).rstrip()
        for row in (head, *rows)
    ]  # fmt: skip
