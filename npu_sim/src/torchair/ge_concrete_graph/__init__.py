# SPDX-License-Identifier: Apache-2.0
"""Older place of the graph engine's names."""

from . import fx2ge_converter, ge_apis, ge_graph

__all__ = ["fx2ge_converter", "ge_apis", "ge_graph"]
