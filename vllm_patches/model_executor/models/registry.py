# SPDX-License-Identifier: Apache-2.0
"""What vLLM wants to know about a model class is found out in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from recipe.overlay import patch

T = TypeVar("T")


@patch(
    "vllm.model_executor.models.registry:_run_in_subprocess",
    why="vLLM imports everything once more in a subprocess to look at the model class without touching the device: "
    "most of the engine's start, in every worker; a worker that trains has its device already",
    upstream="vllm==0.9.1",
    fingerprint="sha256:7e32804d457cceb4664515b86cfcbd252f4fd5bb90a97033aded00c0dab3ee8d",
    remove_when="vLLM caches what it learns about a model class between processes",
)
def _run_in_subprocess(original: Callable[..., Any], fn: Callable[[], T]) -> T:
    # NPU-ADAPTATION: the function is called here; the device is initialised anyway
    return fn()
