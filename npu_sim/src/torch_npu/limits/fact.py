# SPDX-License-Identifier: Apache-2.0
"""What one row of the table of limits is: an operator, one of its arguments, what is documented, and where."""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


class Level(enum.Enum):
    """How much is refused; the values are those of ``NPU_SIM_STRICT``."""

    OFF = "0"
    STRICT = "1"
    FLOAT32 = "float32"


class Refused(RuntimeError):
    """An NPU does not take this call, by a document or by its source; the message names both."""


Arguments = Mapping[str, Any]
"""A call's arguments by name, defaults included; tensors are the caller's own."""


@dataclass(frozen=True)
class Source:
    """Where a fact can be looked up."""

    project: str
    """Name and version of what is documented or implemented there, such as ``op-plugin 7.1.0``."""
    place: str
    """A file of that project, or the title of a page."""

    def __str__(self) -> str:
        return f"{self.project}, {self.place}"


@dataclass(frozen=True)
class Fact:
    """One limit, in words."""

    operator: str
    argument: str
    documented: str
    """What the argument is where an NPU takes it, as in "bfloat16 or float16"; completes "x must be ..."."""
    source: Source | None
    """None: expected from how the hardware works, but found in no document; such a row only warns."""
    contradiction: str = field(default="", kw_only=True)
    """Who passes it nevertheless, or which later source takes it: such a row only warns."""

    @property
    def only_warns(self) -> bool:
        """Whether a call outside this limit is computed all the same."""
        return self.source is None or bool(self.contradiction)

    def message(self, found: str) -> str:
        """The line for a call outside this limit."""
        return f"{self.operator}: {self.argument} is {found}, an NPU takes {self.documented}{self.where()}"

    def where(self) -> str:
        """The end of a message: the source, and what speaks against it."""
        against = f", but {self.contradiction}" if self.contradiction else ""
        return f" ({self.source}{against})" if self.source else "; expected, though no document says so"


@dataclass(frozen=True)
class CallLimit(Fact):
    """A limit of a fused operator, looked at before each call. ``argument`` may name several: "x, cos, sin"."""

    outside: Callable[[Arguments], str | None]
    """What was found where the call is outside the limit, as in "cos is float32"; else None."""
    half_types_only: bool = False
    """Whether the limit is that float32 is not taken: it does not hold at ``Level.FLOAT32``."""

    def message(self, found: str) -> str:
        """The line for a call outside this limit, which names the one argument that is outside."""
        return f"{self.operator}: {found}, an NPU takes {self.documented}{self.where()}"


def every_dtype_but(taken: str) -> frozenset[torch.dtype]:
    """torch's dtypes without those of a list such as ``"bfloat16, float32"``."""
    dtypes = frozenset(value for value in vars(torch).values() if isinstance(value, torch.dtype))
    return dtypes - {getattr(torch, name) for name in taken.split(", ")}


@dataclass(frozen=True)
class TypeLimit(Fact):
    """Dtypes that are not taken, looked at in C++ before each call."""

    refused: frozenset[torch.dtype]
    """Empty: every dtype, where ``reductions`` are named."""

    def rule(self) -> str:
        """The line for a call outside this limit, before what was found."""
        return f"{self.operator}: an NPU takes {self.documented}{self.where()}"


@dataclass(frozen=True)
class OperatorTypes(TypeLimit):
    """Of an operator of torch: ``operator`` is a name as ``aten::mm``, for all its overloads."""


@dataclass(frozen=True)
class CollectiveTypes(TypeLimit):
    """Of a collective of HCCL: ``operator`` is ``hccl`` and c10d's name, as ``hccl allreduce``."""

    reductions: tuple[str, ...] = ()
    """The refused ones by their names in ``torch.distributed.ReduceOp``; none: the row is about dtypes."""
