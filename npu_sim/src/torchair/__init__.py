# SPDX-License-Identifier: Apache-2.0
"""torchair on the simulated NPU: the graph compiler's interface, run eagerly.

A model handed to ``torch.compile`` with :func:`get_npu_backend`'s backend, or to
:func:`torchair.inference.cache_compile`, is returned as it is: the simulated operators depend on values (lengths,
routing), which a traced graph could not hold. What a graph would change beyond that (fixed shapes, constant folding,
graph-only errors) is not simulated.
"""

from . import _contrib, ge, ge_concrete_graph, inference, llm_datadist, ops, scope
from ._backend import get_compiler, get_npu_backend, install, patch_for_hcom, register_fx_node_ge_converter
from .configs import CompilerConfig

install()

__all__ = [
    "CompilerConfig",
    "_contrib",
    "ge",
    "ge_concrete_graph",
    "get_compiler",
    "get_npu_backend",
    "inference",
    "llm_datadist",
    "ops",
    "patch_for_hcom",
    "register_fx_node_ge_converter",
    "scope",
]
