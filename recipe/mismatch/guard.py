# SPDX-License-Identifier: Apache-2.0
"""How far two engines that compute the same model may be apart in a step of the tiny model, in bfloat16.

No bound on a correlation is both honest and of use: one flip in a prefix that a group of answers shares can take that
of all tokens anywhere, and is no defect; that of the others falls with the spread of the probabilities, to 0.974 in a
step of a policy that is sure. Nor is one on the largest difference: where attention or the output layer nearly tie,
rounding alone has made 0.67 of 0.17. What a defect cannot hide from is how many positions flip, and how far apart the
engines are where none does, over all tokens. docs/MISMATCH.md has what was measured.
"""

from __future__ import annotations

from recipe.mismatch.comparison import Comparison

MOST_FLIPS = 0.10
MEAN_DIFFERENCE = 0.01
LARGEST_HIDDEN = 0.02


def beyond(comparison: Comparison) -> list[str]:
    """What in a step is beyond the bounds, each in a line."""
    one, rest = comparison, comparison.rest
    lines = []
    if one.own.share > MOST_FLIPS:
        lines.append(f"{100 * one.own.share:.1f}% of the positions flip, expected {100 * MOST_FLIPS:.0f}% at most")
    if rest.mean_difference > MEAN_DIFFERENCE:
        lines.append(
            f"probabilities of the rest differ by {rest.mean_difference:.4f} in the mean, "
            f"expected {MEAN_DIFFERENCE} at most"
        )
    lines += [
        f"hidden states of the rest behind layer {layer.number} differ by {layer.hidden_rest[0]:.3f} of their length, "
        f"expected {LARGEST_HIDDEN} at most"
        for layer in one.layers
        if layer.hidden_rest[0] > LARGEST_HIDDEN
    ]
    return lines
