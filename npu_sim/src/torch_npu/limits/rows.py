# SPDX-License-Identifier: Apache-2.0
"""How the rows of one operator are written: ``row = limits_of(operator, source)``, then one call for each."""

from typing import Any, Protocol

from torch import Tensor
from torch_npu.limits.conditions import Condition, given
from torch_npu.limits.fact import Arguments, CallLimit, Source


class Row(Protocol):
    """Makes one limit of an operator."""

    def __call__(
        self,
        argument: str,
        documented: str,
        condition: Condition,
        *,
        contradiction: str = "",
        half_types_only: bool = False,
    ) -> CallLimit: ...


def limits_of(operator: str, source: Source | None) -> Row:
    """The maker of an operator's rows.

    Args:
        operator: the name that its calls are counted under.
        source: where its limits are from; None where they are expected only.
    """

    def row(
        argument: str,
        documented: str,
        condition: Condition,
        *,
        contradiction: str = "",
        half_types_only: bool = False,
    ) -> CallLimit:
        def outside(arguments: Arguments) -> str | None:
            for name in argument.split(", "):
                for value in _each(arguments[name]):
                    if value is None and condition is not given:
                        continue
                    found = condition(value, arguments)
                    if found is not None:
                        return f"{name} is {found}"
            return None

        return CallLimit(
            operator,
            argument,
            documented,
            source,
            outside,
            half_types_only=half_types_only,
            contradiction=contradiction,
        )

    return row


def _each(value: Any) -> list[Any]:
    of_tensors = isinstance(value, (list, tuple)) and value and isinstance(value[0], Tensor)
    return list(value) if of_tensors else [value]
