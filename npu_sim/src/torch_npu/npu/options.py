# SPDX-License-Identifier: Apache-2.0
"""Switches of the compiler and of kernels. Values set are kept and can be read back; only ``allow_internal_format``
switches something, and that is what format tensors say that they have.
"""

from typing import Any

_options: dict[str, Any] = {}


def set_compile_mode(jit_compile: bool = False) -> None:
    _options["jit_compile"] = jit_compile


def is_jit_compile_false() -> bool:
    return not _options.get("jit_compile", False)


def set_option(option: dict[str, Any]) -> None:
    if not isinstance(option, dict):
        raise TypeError(f"expected a dictionary of options, got {type(option).__name__}")
    _options.update(option)


class _Switches:
    """Attributes that can be set and read."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no switch {name!r}; there are {sorted(self.__dict__)}")


config = _Switches(allow_internal_format=False)
matmul = _Switches(allow_hf32=False)
conv = _Switches(allow_hf32=True)
aclnn = _Switches(allow_hf32=False)


def finalize_dump() -> None:
    """Nothing is dumped."""
