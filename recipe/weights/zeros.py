# SPDX-License-Identifier: Apache-2.0
"""Tensors of nothing but zeros: what a download leaves that was given its length and not its bytes.

Matrices (two axes or more) of at least a page are never zero in a model that was trained. Vectors may be: biases, among
them `e_score_correction_bias`, and norms that count from one. So may some of a matrix, such as the rows that rounded a
vocabulary up; only a whole one is refused.
"""

from __future__ import annotations

import numpy as np

from recipe.weights.errors import WeightsError
from recipe.weights.hf_checkpoint import TensorEntry

#: The smallest piece of a file that a disk leaves out.
LEAST_BYTES = 4096
_FIRST = 64


def suspicious(entry: TensorEntry) -> bool:
    """Whether zeros alone would be wrong for this tensor."""
    return len(entry.shape) > 1 and entry.nbytes >= LEAST_BYTES


def all_zero(piece: memoryview) -> bool:
    """Whether every byte is zero. Ordinary weights cost no more than their first bytes."""
    return not any(piece[:_FIRST]) and not np.frombuffer(piece, np.uint8).any()


def refusal(where: str) -> WeightsError:
    """The error for a tensor of zeros; where: file and name."""
    return WeightsError(
        f"{where} is all zeros, which no trained matrix is; download the file again, or show with --sha256 that it is "
        "what was published"
    )
