# SPDX-License-Identifier: Apache-2.0
"""Imports every module that declares checks."""

from recipe.preflight import packages, readable, rollout, sizes, training

__all__ = ["packages", "readable", "rollout", "sizes", "training"]
