# SPDX-License-Identifier: Apache-2.0
"""Imports every module that declares checks."""

from recipe.preflight import (
    cluster,
    dataset,
    environment,
    memory,
    node,
    packages,
    readable,
    rollout,
    sizes,
    training,
    weights,
)

__all__ = [
    "cluster", "dataset", "environment", "memory", "node", "packages", "readable", "rollout", "sizes", "training",
    "weights",
]  # fmt: skip
