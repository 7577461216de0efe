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
        skipped = {entry["patch"] for entry in status() if entry["status"] == "skipped"}
        for patch in self.declarations:
            live = self.live and patch.id not in skipped and patch.id not in self.refused
            check(patch, live, self.originals, self.ours)

    def bring_in(self) -> None:
        """Import the upstream modules."""
        if not self.installed:
            # The prelude line in verl would lay the overlay over in the middle of it.
            import verl_patches

            sys.modules["verl_patches.prelude_patch"] = verl_patches.prelude_patch = ModuleType("prelude_patch")
        for module in dict.fromkeys(patch.target.module for patch in self.declarations):
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
                self.refused |= {patch.id: str(error) for patch in self.declarations if str(error).startswith(patch.id)}
        self.installed, self.live = True, self.imported

    def outcomes(self) -> dict[str, tuple[str, str]]:
        """patch -> (outcome, detail)"""
        from recipe.overlay import status

        entries = {entry["patch"]: entry for entry in status()}
        return {
            patch.id: ("refused", self.refused[patch.id]) if patch.id in self.refused
            else ("skipped", entries[patch.id]["reason"]) if entries.get(patch.id, {}).get("status") == "skipped"
            else ("live", "") for patch in self.declarations
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


def check(patch: Any, live: bool, originals: dict[str, Any], ours: dict[str, Any]) -> None:
    from recipe.overlay.declare import declared

    if patch.kind == "source":
        return
    live_object = at(patch.target)
    if patch.kind == "submodule" and live_object is GONE:
        live_object = sys.modules.get(patch.target.submodule, GONE)
    function = getattr(live_object, "__func__", live_object)
    home = getattr(function, "__module__", None) or getattr(live_object, "__name__", None)
    if not live:
        if live_object is not originals.setdefault(patch.id, live_object):
            raise Wrong(f"{patch.id}: another original than before: {live_object!r}, not {originals[patch.id]!r}")
        if live_object is ours.get(patch.id) or str(home).partition(".")[0].endswith("_patches"):
            raise Wrong(f"{patch.id}: still ours: {live_object!r}")
        for alias in patch.aliases:
            if alias.module in sys.modules and at(alias) is not live_object:
                raise Wrong(f"{patch.id}: alias {alias} is still {at(alias)!r}")
        return
    before = ours.get(patch.id)
    if before is not None and patch.kind == "replace" and function is not getattr(before, "__func__", before):
        raise Wrong(f"{patch.id}: applied again as something else: {live_object!r}")
    ours[patch.id] = live_object
    if patch.id in originals and live_object is originals[patch.id]:
        raise Wrong(f"{patch.id}: not applied: {live_object!r}")
    declaration = next(each for each in declared() if each.id == patch.id)
    if patch.kind == "wrap":
        inside = getattr(live_object, "__func__", live_object).__wrapped__
        if getattr(inside, "__wrapped__", None) is not None and "_patches" in str(getattr(inside, "__code__", "")):
            raise Wrong(f"{patch.id}: wrapped twice")
        original = originals.get(patch.id)
        if original is not None and inside is not getattr(original, "__func__", original):
            raise Wrong(f"{patch.id}: wraps {inside!r}, not {original!r}")
    elif patch.kind == "replace" and getattr(live_object, "__func__", live_object) is not declaration.ours:
        raise Wrong(f"{patch.id}: {live_object!r} is not what the declaration holds")
    for alias in patch.aliases:
        if alias.module in sys.modules and at(alias) is not live_object:
            raise Wrong(f"{patch.id}: alias {alias} is {at(alias)!r}")


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
            tell(order, {patch.id: ("wrong", detail) for patch in walk.declarations})
    os._exit(0)


def main() -> None:
    from recipe.audit.declarations import collect

    for name in THIRD_PARTY:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    groups: dict[str, list[Any]] = {}
    for patch in collect():
        groups.setdefault(patch.package, []).append(patch)
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
