# SPDX-License-Identifier: Apache-2.0
"""Target strings, `package.module:Class.member` or `package.module:REGISTRY[key]`, and the mirror rule."""

from __future__ import annotations

import ast
import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.overlay.errors import BadDeclaration
from recipe.own_packages import PATCHES_SUFFIX

_TARGET = re.compile(r"(?P<module>\w+(\.\w+)*):(?P<qualname>\w+(\.\w+)*)(\[(?P<key>.+)\])?")
NO_KEY: Any = object()


@dataclass(frozen=True)
class Target:
    """A place in an upstream: `qualname` (dotted, as `__qualname__`) in `module`, and an entry of it when `has_key`."""

    module: str
    qualname: str
    key: Hashable = None
    has_key: bool = False

    def __str__(self) -> str:
        return f"{self.module}:{self.qualname}" + (f"[{self.key!r}]" if self.has_key else "")

    @property
    def submodule(self) -> str:
        """The target read as a module of a package: `pkg:name` is `pkg.name`."""
        return f"{self.module}.{self.qualname}"


def parse_target(text: str, key: Any = NO_KEY) -> Target:
    """Parse a target.

    The text between the brackets is read as a Python literal, or else as a plain string; `key`, when given, takes
    its place (for tuples and the like).  Raises BadDeclaration when the text is not a target.
    """
    match = _TARGET.fullmatch(text)
    if match is None:
        raise BadDeclaration(
            f"{text!r} is not a target: expected 'package.module:function', 'package.module:Class.method' or "
            "'package.module:REGISTRY[key]'"
        )
    bracket = match["key"]
    if key is NO_KEY and bracket is not None:
        try:
            key = ast.literal_eval(bracket)
        except (ValueError, SyntaxError):
            key = bracket
    if key is NO_KEY:
        return Target(match["module"], match["qualname"])
    return Target(match["module"], match["qualname"], key, True)


def mirrored(mirror: str) -> str | None:
    """The upstream module that module `mirror` stands beside: verl_patches.protocol -> verl.protocol, else None."""
    root, dot, rest = mirror.partition(".")
    if not root.endswith(PATCHES_SUFFIX) or root == PATCHES_SUFFIX:
        return None
    return root.removesuffix(PATCHES_SUFFIX) + dot + rest


def module_name(file: Path, root: Path) -> str:
    """The dotted name a file under a `*_patches` package of `root` has or would have as a module."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
