# SPDX-License-Identifier: Apache-2.0
"""Node constructors; without graphs each raises."""

from typing import Any

from ..ge import Cast, Const, custom_op


def Fill(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError("torchair.ge_concrete_graph.ge_apis.Fill: graphs are not simulated, models run eagerly")


__all__ = ["Cast", "Const", "Fill", "custom_op"]
