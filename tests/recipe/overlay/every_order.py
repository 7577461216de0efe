# SPDX-License-Identifier: Apache-2.0
"""Take every patch of the named upstream packages through every order of import, patch and revert; run as a program.

Each (upstream package, order) is a process of its own, forked from one that has imported third-party packages only, so
that torch and Ray are not imported a hundred times.  Prints one JSON line per patch and order:
{patch, order, outcome: live | skipped | refused, detail}, or outcome "wrong" with what was found.

An order is a word: I imports the upstream modules, P lays the overlay over the process (again: applies), R reverts.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import sys
import traceback
from types import ModuleType
from typing import Any

# Every way to import, patch and revert with one repetition, and some with two.
ORDERS = [
    "IP", "PI", "IPP", "PIP", "PPI", "IPRP", "PIRP", "PRIP", "PRPI", "RPI", "PRI", "IRP", "IPR", "PIR", "IPRR", "PRIR",
    "PRRI", "PIRR", "IPRPR", "PIPR",
]  # fmt: skip
# What the upstreams import from others and takes long. One that is not installed is left out.
THIRD_PARTY = [
    "torch", "torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp", "torchvision", "ray",
    "ray.util.queue", "tensordict", "transformers", "transformers.modeling_utils", "transformers.generation",
    "transformers.models.auto.modeling_auto", "datasets", "pandas", "pyarrow", "omegaconf", "hydra", "cloudpickle",
    "numba", "scipy.stats", "zmq", "msgspec", "openai", "xgrammar", "cv2", "fastapi", "compressed_tensors", "gguf",
]  # fmt: skip
GONE = "gone"


class Wrong(AssertionError):
    """A patch is not what it should be."""


def walk(order: str, declarations: list[Any]) -> dict[str, tuple[str, str]]:
    """Go through `order` in this process; returns patch -> (outcome, detail).  Raises Wrong."""
    if order.index("I") < (order + "P").index("P"):
        # The prelude line in verl would lay the overlay over in the middle of I.
        import verl_patches

        sys.modules["verl_patches.prelude_patch"] = verl_patches.prelude_patch = ModuleType("prelude_patch")
    from recipe.overlay import apply, revert, status
    from recipe.overlay.errors import OverlayError

    refused: dict[str, str] = {}
    originals: dict[str, Any] = {}
    ours: dict[str, Any] = {}
    imported = installed = live = False
    for letter in order:
        if letter == "I":
            for module in dict.fromkeys(one.target.module for one in declarations):
                importlib.import_module(module)
            live, imported = (installed if not imported else live), True
        elif letter == "R":
            revert()
            live = False
        elif installed:
            apply()
            live = imported
        else:
            for error in install_each():
                assert isinstance(error, OverlayError)
                refused |= {one.id: str(error) for one in declarations if str(error).startswith(one.id)}
            installed, live = True, imported
        if not imported:
            continue
        skipped = {one["patch"] for one in status() if one["status"] == "skipped"}
        for one in declarations:
            check(one, live and one.id not in skipped and one.id not in refused, originals, ours)
    outcomes = {one["patch"]: one for one in status()}
    return {
        one.id: ("refused", refused[one.id]) if one.id in refused
        else ("skipped", outcomes[one.id]["reason"]) if outcomes.get(one.id, {}).get("status") == "skipped"
        else ("live", "") for one in declarations
    }  # fmt: skip


def install_each() -> list[BaseException]:
    """What `install` does, mirror by mirror, going on after a refusal; returns the refusals."""
    from recipe.overlay import hook
    from recipe.overlay.errors import OverlayError

    refusals: list[BaseException] = []
    for mirror in hook.discover():
        try:
            hook.when_executed(mirror.upstream, functools.partial(hook._lay_over, mirror))
        except OverlayError as error:
            refusals.append(error)
    return refusals


def at(target: Any) -> Any:
    """What lies at the target now, descriptors as they are."""
    if target.has_key:
        return vars(sys.modules[target.module])[target.qualname].get(target.key, GONE)
    holder: Any = sys.modules[target.module]
    *scopes, name = target.qualname.split(".")
    for scope in scopes:
        holder = vars(holder)[scope]
    return vars(holder).get(name, GONE)


def check(one: Any, live: bool, originals: dict[str, Any], ours: dict[str, Any]) -> None:
    from recipe.overlay.declare import declared

    if one.kind == "source":
        return
    found = at(one.target)
    if one.kind == "submodule" and found is GONE:
        found = sys.modules.get(one.target.submodule, GONE)
    home = getattr(getattr(found, "__func__", found), "__module__", None) or getattr(found, "__name__", None)
    if not live:
        if found is not originals.setdefault(one.id, found):
            raise Wrong(f"{one.id}: another original than before: {found!r}, not {originals[one.id]!r}")
        if found is ours.get(one.id) or str(home).partition(".")[0].endswith("_patches"):
            raise Wrong(f"{one.id}: still ours: {found!r}")
        for alias in one.aliases:
            if alias.module in sys.modules and at(alias) is not found:
                raise Wrong(f"{one.id}: alias {alias} is still {at(alias)!r}")
        return
    if one.id in ours and one.kind == "replace" and found is not ours[one.id]:
        raise Wrong(f"{one.id}: applied again as something else: {found!r}")
    ours[one.id] = found
    if one.id in originals and found is originals[one.id]:
        raise Wrong(f"{one.id}: not applied: {found!r}")
    declaration = next(each for each in declared() if each.id == one.id)
    if one.kind == "wrap":
        inside = getattr(found, "__func__", found).__wrapped__
        if getattr(inside, "__wrapped__", None) is not None and "_patches" in str(getattr(inside, "__code__", "")):
            raise Wrong(f"{one.id}: wrapped twice")
        original = originals.get(one.id)
        if original is not None and inside is not getattr(original, "__func__", original):
            raise Wrong(f"{one.id}: wraps {inside!r}, not {original!r}")
    elif one.kind == "replace" and getattr(found, "__func__", found) is not declaration.ours:
        raise Wrong(f"{one.id}: {found!r} is not what the declaration holds")
    for alias in one.aliases:
        if alias.module in sys.modules and at(alias) is not found:
            raise Wrong(f"{one.id}: alias {alias} is {at(alias)!r}")


def in_child(order: str, declarations: list[Any], out: int) -> None:
    """The life of one forked process."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            outcomes = walk(order, declarations)
    except BaseException as error:
        detail = str(error) if isinstance(error, Wrong) else traceback.format_exc()[-2000:]
        outcomes = {one.id: ("wrong", detail) for one in declarations}
    for patch, (outcome, detail) in outcomes.items():
        line = json.dumps({"patch": patch, "order": order, "outcome": outcome, "detail": detail})
        os.write(out, line.encode() + b"\n")


def main() -> None:
    from recipe.audit.declarations import collect

    for name in THIRD_PARTY:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    groups: dict[str, list[Any]] = {}
    for one in collect():
        groups.setdefault(one.package, []).append(one)
    work = [(package, order) for package in sys.argv[1:] for order in ORDERS]
    running: set[int] = set()
    for package, order in work:
        if len(running) >= (os.cpu_count() or 1):
            child, _ = os.wait()
            running.discard(child)
        child = os.fork()
        if child == 0:
            in_child(order, groups[package], sys.__stdout__.fileno())  # type: ignore[union-attr]
            os._exit(0)
        running.add(child)
    while running:
        child, _ = os.wait()
        running.discard(child)


if __name__ == "__main__":
    main()
