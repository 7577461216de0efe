# SPDX-License-Identifier: Apache-2.0
"""Names of the graph engine that operator builders mention in annotations and lowerings; nothing builds a graph."""

from enum import IntEnum
from typing import Any, NoReturn


class Tensor:
    """A graph tensor; never made here."""


class TensorSpec:
    """Shape and dtype of a graph tensor; never made here."""


class DataType(IntEnum):
    """Element types by their GE numbers."""

    DT_FLOAT = 0
    DT_FLOAT16 = 1
    DT_INT8 = 2
    DT_INT32 = 3
    DT_UINT8 = 4
    DT_INT16 = 6
    DT_UINT16 = 7
    DT_UINT32 = 8
    DT_INT64 = 9
    DT_UINT64 = 10
    DT_DOUBLE = 11
    DT_BOOL = 12
    DT_BF16 = 27
    DT_UNDEFINED = 28


def _no_graph(name: str) -> NoReturn:
    raise NotImplementedError(f"torchair.ge.{name}: graphs are not simulated, models run eagerly")


def custom_op(*args: Any, **kwargs: Any) -> Any:
    _no_graph("custom_op")


def Const(*args: Any, **kwargs: Any) -> Any:
    _no_graph("Const")


def Cast(*args: Any, **kwargs: Any) -> Any:
    _no_graph("Cast")


class attr:
    """Typed attributes of a graph node."""

    @staticmethod
    def Int(value: int) -> Any:
        _no_graph("attr.Int")

    @staticmethod
    def Bool(value: bool) -> Any:
        _no_graph("attr.Bool")

    @staticmethod
    def Float(value: float) -> Any:
        _no_graph("attr.Float")

    @staticmethod
    def Str(value: str) -> Any:
        _no_graph("attr.Str")
