# SPDX-License-Identifier: Apache-2.0
"""Take every patch of the named upstream packages through every order of import, patch and revert; run as a program.

Each (upstream package, order) has a process of its own: after a step, one is forked for each step that may come next.
Orders that begin alike share that beginning, and all of them one import of third-party packages.  Prints one JSON line
per patch and order: {patch, order, outcome: live | skipped | refused, detail}, or outcome "wrong" with what was found.

An order is a word: I imports the upstream modules, P lays the overlay over the process (again: applies), R reverts.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
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


class Walk:
    """The way of this process through an order, letter by letter; raises Wrong."""

    def __init__(self, declarations: list[Any]) -> None:
        self.declarations = declarations
        self.refused: dict[str, str] = {}
        self.originals: dict[str, Any] = {}
        self.ours: dict[str, Any] = {}
        self.imported = self.installed = self.live = False

    def step(self, letter: str) -> None:
        from recipe.overlay import revert, status

        if letter == "I":
            self.bring_in()
        elif letter == "R":
            revert()
            self.live = False
        else:
            self.lay_over()
        if not self.imported:
            return
        skipped = {one["patch"] for one in status() if one["status"] == "skipped"}
        for one in self.declarations:
            live = self.live and one.id not in skipped and one.id not in self.refused
            check(one, live, self.originals, self.ours)

    def bring_in(self) -> None:
        """Import the upstream modules."""
        if not self.installed:
            # The prelude line in verl would lay the overlay over in the middle of it.
            import verl_patches

            sys.modules["verl_patches.prelude_patch"] = verl_patches.prelude_patch = ModuleType("prelude_patch")
        for module in dict.fromkeys(one.target.module for one in self.declarations):
            importlib.import_module(module)
        self.live, self.imported = (self.installed if not self.imported else self.live), True

    def lay_over(self) -> None:
        from recipe.overlay import apply
        from recipe.overlay.errors import OverlayError

        if self.installed:
            apply()
        else:
            for error in install_each():
                assert isinstance(error, OverlayError)
                self.refused |= {one.id: str(error) for one in self.declarations if str(error).startswith(one.id)}
        self.installed, self.live = True, self.imported

    def outcomes(self) -> dict[str, tuple[str, str]]:
        """patch -> (outcome, detail)"""
        from recipe.overlay import status

        found = {one["patch"]: one for one in status()}
        return {
            one.id: ("refused", self.refused[one.id]) if one.id in self.refused
            else ("skipped", found[one.id]["reason"]) if found.get(one.id, {}).get("status") == "skipped"
            else ("live", "") for one in self.declarations
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


def tell(order: str, outcomes: dict[str, tuple[str, str]]) -> None:
    for patch, (outcome, detail) in outcomes.items():
        line = json.dumps({"patch": patch, "order": order, "outcome": outcome, "detail": detail})
        os.write(sys.__stdout__.fileno(), line.encode() + b"\n")  # type: ignore[union-attr]


def explore(walk: Walk, gone: str, orders: list[str]) -> None:
    """Go on from `gone`, where this process is, to the end of each of these orders."""
    if gone in orders:
        tell(gone, walk.outcomes())
    for letter in dict.fromkeys(order[len(gone)] for order in orders if order != gone):
        further = [order for order in orders if order.startswith(gone + letter)]
        os.waitpid(fork(walk, gone + letter, further), 0)


def fork(walk: Walk, gone: str, orders: list[str]) -> int:
    """A process that takes the last step of `gone` and goes on to these orders; returns its number."""
    child = os.fork()
    if child:
        return child
    try:
        with contextlib.redirect_stdout(sys.stderr):
            walk.step(gone[-1])
            explore(walk, gone, orders)
    except BaseException as error:
        detail = str(error) if isinstance(error, Wrong) else traceback.format_exc()[-2000:]
        for order in orders:
            tell(order, {one.id: ("wrong", detail) for one in walk.declarations})
    os._exit(0)


def main() -> None:
    from recipe.audit.declarations import collect

    for name in THIRD_PARTY:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    groups: dict[str, list[Any]] = {}
    for one in collect():
        groups.setdefault(one.package, []).append(one)
    running: set[int] = set()
    for package, letter in itertools.product(sys.argv[1:], "PIR"):
        if len(running) >= (os.cpu_count() or 1):
            child, _ = os.wait()
            running.discard(child)
        running.add(fork(Walk(groups[package]), letter, [order for order in ORDERS if order[0] == letter]))
    while running:
        child, _ = os.wait()
        running.discard(child)


if __name__ == "__main__":
    main()
