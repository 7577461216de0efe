# SPDX-License-Identifier: Apache-2.0
"""Graph capture is not simulated: the names import, use raises."""

from typing import Any


def _refuse(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError("NPU graphs are not simulated; run eagerly (enforce_eager=True) or through torchair")


class NPUGraph:
    """Refuses to be made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse()


graph = graph_pool_handle = make_graphed_callables = _refuse
graph_task_group_begin = graph_task_group_end = graph_task_update_begin = graph_task_update_end = _refuse


def is_current_stream_capturing() -> bool:
    return False
