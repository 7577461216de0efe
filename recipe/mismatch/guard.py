# SPDX-License-Identifier: Apache-2.0
"""How far two engines that compute the same model may be apart in a step of the tiny model, in bfloat16.

No bound on a correlation is both honest and of use: one flip in a prefix that a group of answers shares can take that
of all tokens anywhere, and is no defect; that of the others falls with the spread of the probabilities, to 0.974 in a
step of a policy that is sure. What a defect cannot hide from is how many positions flip, and how far apart the
engines are where none does. Measured over the steps of docs/MISMATCH.md: at most 6.1 % of the positions, and without
them probabilities 0.152 apart at most, and hidden states by a median of 0.7 % of their length.
"""

from __future__ import annotations

from recipe.mismatch.comparison import Comparison

MOST_FLIPS = 0.10
# The most that a logit difference of 1 can change a probability by is 0.245: eight steps of bfloat16 between 16 and 32.
LARGEST_DIFFERENCE = 0.25
LARGEST_HIDDEN = 0.02


def beyond(comparison: Comparison) -> list[str]:
    """What in a step is beyond the bounds, each in a line."""
    one, rest = comparison, comparison.rest
    lines = []
    if one.own.share > MOST_FLIPS:
        lines.append(f"{100 * one.own.share:.1f}% of the positions flip, expected {100 * MOST_FLIPS:.0f}% at most")
    if rest.largest_difference > LARGEST_DIFFERENCE:
        lines.append(
            f"probabilities of the rest differ by {rest.largest_difference:.3f}, expected {LARGEST_DIFFERENCE}"
        )
    lines += [
        f"hidden states of the rest behind layer {layer.number} differ by {layer.hidden_rest[0]:.3f} of their length, "
        f"expected {LARGEST_HIDDEN} at most"
        for layer in one.layers
        if layer.hidden_rest[0] > LARGEST_HIDDEN
    ]
    return lines
