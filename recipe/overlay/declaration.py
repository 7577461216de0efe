# SPDX-License-Identifier: Apache-2.0
"""The declaration of a change to an upstream, the same wherever it is read from.

`@patch` makes a `Declaration` in the process that imports a mirror, `recipe.audit.declarations` reads the same one from
the mirror's text, and `recipe.overlay.source_patch` from the header of a `.patch` file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipe.overlay.errors import BadDeclaration
from recipe.overlay.target import Target, mirrored

SOURCE = "source"
KINDS = ("registry", "submodule", "wrap", "replace", SOURCE)
_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(==|~=|>=|<=|!=|<|>).+")


@dataclass(frozen=True)
class Condition:
    """Where a patch applies.

    function: called once, when the upstream module is there.  otherwise: why the patch is left out where it is false.
    """

    function: Callable[[], bool]
    otherwise: str = field(kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.otherwise, str) or not self.otherwise.strip():
            raise BadDeclaration(f"Condition({self.function!r}): otherwise={self.otherwise!r}: expected a text")


@dataclass(frozen=True, eq=False)
class Declaration:
    """One change to an upstream; BadDeclaration when it is not well formed.

    id: `<mirror module>:<name>`. kind: see `recipe.overlay.patch`; "source" is a `.patch` file, which `sync` has
    applied already. fingerprints: of the target as pinned; the target must have one of them. patched: of the target
    with the source patch in it, in the same order; empty for other kinds. file, line: where it is declared. otherwise:
    why it is left out where its condition does not hold; empty when it has none. ours, applies: the decorated function,
    and that of the condition; None when the declaration was read from text.
    """

    id: str
    mirror: str
    target: Target
    kind: str
    why: str
    upstream: str
    fingerprints: tuple[str, ...]
    remove_when: str
    file: Path
    line: int
    otherwise: str = ""
    aliases: tuple[Target, ...] = ()
    over: tuple[str, ...] = ()
    patched: tuple[str, ...] = ()
    ours: Any = None
    applies: Callable[[], bool] | None = None

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def package(self) -> str:
        """The upstream package: verl, vllm, ..."""
        return self.target.module.partition(".")[0]

    @property
    def expected(self) -> tuple[str, ...]:
        """The fingerprints that the target has in a process that runs with the change."""
        return self.patched or self.fingerprints

    def __post_init__(self) -> None:
        fault = self._fault()
        if fault is not None:
            raise BadDeclaration(f"patch on {self.target}: {fault}")

    def _fault(self) -> str | None:
        """What is wrong with the declaration, in words; None when nothing is."""
        if self.kind not in KINDS:
            return f"kind={self.kind!r}: expected one of {', '.join(KINDS[:-1])}"
        for name in ("why", "upstream", "remove_when"):
            text = getattr(self, name)
            if not isinstance(text, str) or not text.strip():
                return f"{name}={text!r}: expected a text"
        if not _REQUIREMENT.fullmatch(self.upstream):
            return f"upstream={self.upstream!r}: expected a requirement such as 'verl==0.6.1'"
        return self._wrong_fingerprint() or self._misplaced()

    def _wrong_fingerprint(self) -> str | None:
        if self.patched and len(self.patched) != len(self.fingerprints):
            return f"{len(self.fingerprints)} Fingerprint and {len(self.patched)} Patched: expected as many"
        for fingerprint in (*(self.fingerprints or (None,)), *self.patched):
            if not _FINGERPRINT.fullmatch(str(fingerprint)):
                return (
                    f"fingerprint={fingerprint!r}: expected 'sha256:' and 64 hex digits, as printed by "
                    f"`python -m recipe patches fingerprint {self.target.module}:{self.target.qualname}`"
                )
        return None

    def _misplaced(self) -> str | None:
        if (self.kind == SOURCE) != bool(self.patched):
            return "kind='source' is for .patch files"
        if (self.kind == "registry") != self.target.has_key:
            return "a [key] and kind='registry' go together"
        if self.kind == "submodule" and "." in self.target.qualname:
            return "kind='submodule' takes 'package:module'"
        upstream = mirrored(self.mirror)
        if upstream is None:
            return f"module {self.mirror} is not in a *_patches package"
        if upstream != self.target.module:
            return (
                f"the target is in {self.target.module}, but this file mirrors {upstream}; declare it in the "
                "target's mirror"
            )
        return None


def fingerprints_of(value: Any) -> tuple[Any, ...]:
    """The `fingerprint` argument, one text or a tuple of them, as a tuple."""
    return value if isinstance(value, tuple) else (value,)


@contextmanager
def declared_at(where: str) -> Iterator[None]:
    """Within the block a BadDeclaration says where."""
    try:
        yield
    except BadDeclaration as error:
        raise BadDeclaration(f"{where}: {error}") from None
