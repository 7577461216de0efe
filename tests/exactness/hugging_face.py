# SPDX-License-Identifier: Apache-2.0
"""Hugging Face's own models as the reference, in processes that import verl.

verl replaces norms, activations, rotary embeddings and blocks of experts of some of them by operators of the NPU
(verl/models/transformers/npu_patch.py), so that they would be compared with themselves, and compute on no host.
"""

from __future__ import annotations

import importlib

REPLACED = ("qwen2", "qwen3", "qwen3_moe")


def restore() -> None:
    """Make the library's own again; models that are built afterwards have them."""
    for name in REPLACED:
        importlib.reload(importlib.import_module(f"transformers.models.{name}.modeling_{name}"))
