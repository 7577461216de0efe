# SPDX-License-Identifier: Apache-2.0
"""`@patch`: say what is changed, why, in which version of what, and when the change can go."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from recipe.overlay.errors import BadDeclaration, ConflictError
from recipe.overlay.target import NO_KEY, Target, mirrored, parse_target

KINDS = ("wrap", "replace", "subclass", "registry", "submodule")
_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(==|~=|>=|<=|!=|<|>).+")
T = TypeVar("T")


@dataclass(eq=False)
class Patch:
    """One declared change. `id` is `<mirror module>:<name>`; `ours` is the decorated object or the given value.

    `fingerprints`: those of the target, any of which will do.  kind "source" is a patch that `sync` has applied to
    the file already; its fingerprints are those of the patched target, and `ours` is None.
    """

    id: str
    mirror: str
    target: Target
    kind: str
    ours: Any
    why: str
    upstream: str
    fingerprints: tuple[str, ...]
    remove_when: str
    file: str
    line: int
    when: Callable[[], bool] | None = None
    aliases: tuple[Target, ...] = ()
    over: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


_lock = threading.RLock()
_declared: dict[str, Patch] = {}


def declared(mirror: str | None = None) -> list[Patch]:
    """The patches declared so far in this process, in order; of one mirror module when it is named."""
    with _lock:
        return [one for one in _declared.values() if mirror is None or one.mirror == mirror]


def forget(mirror: str) -> None:
    """Drop the declarations of a mirror whose import failed, so that the next import declares them anew."""
    with _lock:
        for one in [one for one in _declared.values() if one.mirror == mirror]:
            del _declared[one.id]


def _overlap(one: Patch, other: Patch) -> bool:
    if one.target == other.target:
        return True
    if one.target.module != other.target.module or one.target.has_key or other.target.has_key:
        return False
    short, long = sorted((one, other), key=lambda p: len(p.target.qualname))
    # A member of something that another patch replaces as a whole.
    return short.kind in ("replace", "subclass") and long.target.qualname.startswith(short.target.qualname + ".")


def register(new: Patch) -> None:
    """Add a patch.  Raises ConflictError when another one has its name or its target."""
    with _lock:
        for old in _declared.values():
            if old.id == new.id and old.where != new.where:
                raise ConflictError(f"two patches are named {new.id}: {old.where} and {new.where}; rename one")
            if old.id != new.id and _overlap(old, new):
                raise ConflictError(
                    f"two patches on one target: {old.id} ({old.where}) patches {old.target}, "
                    f"{new.id} ({new.where}) patches {new.target}; make them one"
                )
        _declared[new.id] = new


def check_fields(target: Target, kind: str, fields: dict[str, Any], mirror: str) -> str | None:
    """What is wrong with a declaration in module `mirror`, in words, or None."""
    if kind not in KINDS:
        return f"kind={kind!r}: expected one of {', '.join(KINDS)}"
    for name in ("why", "upstream", "remove_when"):
        if not isinstance(fields[name], str) or not fields[name].strip():
            return f"{name}={fields[name]!r}: expected a text"
    if not _REQUIREMENT.fullmatch(fields["upstream"]):
        return f"upstream={fields['upstream']!r}: expected a requirement such as 'verl==0.6.1'"
    return _misplaced(target, kind, mirror)


def fingerprints_of(value: Any) -> tuple[Any, ...]:
    """The `fingerprint` argument, one text or a tuple of them, as a tuple."""
    return value if isinstance(value, tuple) else (value,)


def check_fingerprints(value: Any, target: Target) -> str | None:
    """What is wrong with a `fingerprint` argument, in words, or None."""
    for one in fingerprints_of(value) or (None,):
        if not _FINGERPRINT.fullmatch(str(one)):
            return (
                f"fingerprint={one!r}: expected 'sha256:' and 64 hex digits, as printed by "
                f"`python -m recipe patches fingerprint {target.module}:{target.qualname}`"
            )
    return None


def _misplaced(target: Target, kind: str, mirror: str) -> str | None:
    if (kind == "registry") != target.has_key:
        return f"{target}: a [key] and kind='registry' go together"
    if kind == "submodule" and "." in target.qualname:
        return f"{target}: kind='submodule' takes 'package:module'"
    upstream = mirrored(mirror)
    if upstream is None:
        return f"module {mirror} is not in a *_patches package"
    if upstream != target.module:
        return f"the target is in {target.module}, but this file mirrors {upstream}; declare it in the target's mirror"
    return None


class _PatchFactory:
    """The public `patch`: a decorator, and `patch.value(...)` for values that are no function or class."""

    def __call__(
        self,
        target: str,
        *,
        why: str,
        upstream: str,
        fingerprint: str | tuple[str, ...],
        remove_when: str,
        kind: str = "wrap",
        when: Callable[[], bool] | None = None,
        aliases: tuple[str, ...] = (),
        over: tuple[str, ...] = (),
        key: Hashable = NO_KEY,
    ) -> Callable[[T], T]:
        """Declare that the decorated object patches `target`; returns the object itself.

        target: `module:qualname` in the upstream module that this file mirrors; `module:NAME[key]` for a registry.
        why: what goes wrong without it.  upstream: PEP 508 requirement the patch was written for.
        fingerprint: of the target, from `python -m recipe patches fingerprint TARGET`; a tuple where the profiles pin
          different sources of it.
        remove_when: the condition under which the patch can be dropped.
        kind:
          wrap       called as `ours(original, *args, **kwargs)`; for methods self or cls comes after `original`;
                     static and class methods, properties (the getter), coroutine functions and attributes are kept
          replace    the decorated function or class takes the target's place
          subclass   the decorated class is a subclass of the target and takes its place in the module
          registry   the decorated function, called without arguments, returns the entry `NAME[key]`
          submodule  target `package:module`; the decorated function, called without arguments, returns the module
                     that stands in for `package.module`; it must come before that module is imported
        when: called once, when the upstream module is there; false leaves the patch out and its docstring says why.
        aliases: `module:name` places that hold a copy of the target (`from x import y`); rebound as well.
        over: packages that may have replaced the target before us (for instance "mindspeed").
        key: the registry key when it is not a plain literal in the target.

        Raises BadDeclaration or ConflictError, and with them the import of the file fails.
        """
        frame = sys._getframe(1)
        mirror, file, line = frame.f_globals.get("__name__", "?"), frame.f_code.co_filename, frame.f_lineno
        fields = {"why": why, "upstream": upstream, "fingerprint": fingerprint, "remove_when": remove_when}
        try:
            parsed = parse_target(target, key)
            copies = tuple(parse_target(alias) for alias in aliases)
            wrong = check_fields(parsed, kind, fields, mirror) or check_fingerprints(fingerprint, parsed)
        except BadDeclaration as error:
            wrong = str(error)
        if wrong:
            raise BadDeclaration(f"{file}:{line}: patch on {target}: {wrong}")

        def declare(ours: T) -> T:
            name = getattr(ours, "__name__", None) if callable(ours) else None
            if name is None:
                raise BadDeclaration(f"{file}:{line}: patch on {target}: decorate a function or a class")
            if kind == "subclass" and not isinstance(ours, type):
                raise BadDeclaration(f"{file}:{line}: patch on {target}: kind='subclass' decorates a class")
            register(
                Patch(
                    f"{mirror}:{name}", mirror, parsed, kind, ours, why, upstream, fingerprints_of(fingerprint),
                    remove_when, file, line, when, copies, tuple(over),
                )
            )  # fmt: skip
            return ours

        return declare

    def value(self, target: str, value: object, **declaration: Any) -> None:
        """Declare that `value` takes the place of a module's or class's attribute.

        Takes the decorator's keyword arguments but `kind` and `key`; the patch's id is `<mirror module>:<name of the
        target>`.  Raises as the decorator does.
        """
        frame = sys._getframe(1)
        mirror, file, line = frame.f_globals.get("__name__", "?"), frame.f_code.co_filename, frame.f_lineno
        parsed = parse_target(target)
        fields = {name: declaration.pop(name, None) for name in ("why", "upstream", "fingerprint", "remove_when")}
        wrong = check_fields(parsed, "replace", fields, mirror) or check_fingerprints(fields["fingerprint"], parsed)
        if wrong:
            raise BadDeclaration(f"{file}:{line}: patch on {target}: {wrong}")
        declaration["aliases"] = tuple(parse_target(alias) for alias in declaration.get("aliases", ()))
        fields["fingerprints"] = fingerprints_of(fields.pop("fingerprint"))
        register(
            Patch(f"{mirror}:{parsed.qualname}", mirror, parsed, "replace", value, **fields, file=file, line=line,
                  **declaration)
        )  # fmt: skip


patch = _PatchFactory()
