# SPDX-License-Identifier: Apache-2.0
"""A phase that fails while a profiler stands by fails, and is not done a second time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from recipe.overlay import patch


@patch(
    "verl.utils.profiler.profile:DistProfiler.annotate",
    kind="replace",
    why="with a profiler that marks phases, whatever a worker's phase raises is dropped and the phase is done again: "
    "an update that ends behind its optimizer step is made twice, and one that is out of memory is tried once more",
    upstream="verl==0.6.1",
    fingerprint="sha256:c0f4f0425b74eb84884d98ef44446ff742e7da953f5ae4b2ce2336b2cba65d11",
    remove_when="verl's annotate lets the errors of the function through",
)
def annotate(  # NPU-ADAPTATION: a phase runs once, whatever it raises
    cls: type[Any], message: str | None = None, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator of a worker's method: the worker's profiler, if it has one that marks phases, marks it as one."""

    def decorate(phase: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(phase)
        def run(worker: Any, *args: Any, **kwargs: Any) -> Any:
            profiler = getattr(getattr(worker, "profiler", None), "_impl", None)
            marks = getattr(profiler, "annotate", None)
            marked = phase if marks is None else marks(message=message, **options)(phase)
            return marked(worker, *args, **kwargs)

        return run

    return decorate
