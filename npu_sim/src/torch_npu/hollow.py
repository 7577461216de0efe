# SPDX-License-Identifier: Apache-2.0
"""Tensors without contents, so that a model of any size can be run for what it takes and moves.

After :func:`make_hollow`, a floating tensor of a given size or more, on a simulated device or on the host, has its
bytes in every account (device memory, page-locked memory) and nowhere else. An operator on it runs its shape
function, and what it returns has no contents either, whatever its size and dtype. Integers, booleans and small
tensors that depend on no such tensor are computed as ever; so are factories (``zeros_like`` of a small one). Whoever
needs contents that are not there gets :class:`HollowRead`.

A tensor has contents again when all of its storage is overwritten with known values and it is below the size, or by
:func:`give_contents`.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.utils import _device
from torch_npu import _sim

Read = Callable[[str, torch.dtype], float | int]
"""Gives the number that an operator (its name) reads of a tensor without contents; raises when it knows none."""

_INNER = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


class HollowRead(RuntimeError):
    """The contents of a tensor are wanted that has none."""


def caller() -> str:
    """Where the program, outside torch and the simulator, is on this thread: ``file:line in function``."""
    frame = sys._getframe(1)
    while frame is not None:
        if not frame.f_code.co_filename.startswith(_INNER):
            return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
        frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
    return "a backward pass"


def _refuse(operator: str, why: str) -> NoReturn:
    raise HollowRead(f"{operator} {why} ({caller()})")


def _read_nothing(operator: str, dtype: torch.dtype) -> NoReturn:
    _refuse(operator, f"reads a {str(dtype).removeprefix('torch.')} of a tensor without contents")


def _guarded(name: str) -> None:
    """From now on the method raises for tensors without contents: it reads memory without asking the dispatcher."""
    original = getattr(torch.Tensor, name)

    @wraps(original)
    def method(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self, torch.Tensor) and _sim.is_hollow(self):
            _refuse(f"Tensor.{name}", "wants contents of a tensor that has none")
        return original(self, *args, **kwargs)

    setattr(torch.Tensor, name, method)


def _with_contents(name: str) -> None:
    """From now on the function of torch makes tensors with contents: it writes given values into memory itself."""
    original = getattr(torch, name)

    @wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        with with_contents():
            return original(*args, **kwargs)

    setattr(torch, name, function)


def make_hollow(from_bytes: int, read: Read | None = None) -> None:
    """From now on this thread, and backward passes that it starts, makes large floating tensors without contents.

    There is no way back in this process. Other threads must not work on such tensors of the host.

    Args:
        from_bytes: size of a storage from which on a floating tensor is made without contents.
        read: gives the numbers that programs read of tensors without contents; without it every read raises.

    Raises:
        ValueError: ``from_bytes`` is not positive.
    """
    if from_bytes < 1:
        raise ValueError(f"from_bytes is {from_bytes}, expected 1 or more")
    import torch._meta_registrations  # noqa: F401  many operators have their shape function there

    for name in ("numpy", "tolist", "__array__"):
        _guarded(name)
    _device._device_constructors()  # knows the functions that heed `with torch.device(...)` by what they are now
    for name in ("tensor", "as_tensor"):
        _with_contents(name)
    _sim.make_hollow(from_bytes, read or _read_nothing, _refuse)


def is_hollow(tensor: torch.Tensor) -> bool:
    """Whether the tensor, on a device or on the host, has no contents."""
    return _sim.is_hollow(tensor)


@contextmanager
def with_contents() -> Iterator[None]:
    """In here, this thread makes tensors of every size with contents: for values that are known."""
    before = _sim.set_all_with_contents(True)
    try:
        yield
    finally:
        _sim.set_all_with_contents(before)


def give_contents(tensor: torch.Tensor, values: torch.Tensor) -> None:
    """Write known values into a tensor, whether or not it has contents so far; from then on it is computed with.

    Args:
        tensor: on a device or on the host; without contents, it must be all of its storage.
        values: of a shape that broadcasts to the tensor's; large ones are made :func:`with_contents`.

    Raises:
        HollowRead: the values have no contents themselves.
    """
    if _sim.is_hollow(values):
        _refuse("give_contents", "got values without contents")
    with torch.no_grad(), with_contents():
        if _sim.is_hollow(tensor):
            _sim.give_zeros(tensor)
        tensor.copy_(values)
