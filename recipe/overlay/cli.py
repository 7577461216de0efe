# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe patches ...`: list, show and check the declared patches without importing any of them."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import time
from pathlib import Path
from typing import Any

from recipe.overlay import source, static
from recipe.overlay.errors import OverlayError
from recipe.overlay.hook import REPOSITORY
from recipe.overlay.target import parse_target


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `patches` command."""
    parser = subparsers.add_parser("patches", help="list, show and verify the patches laid over the upstreams")
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    json_option = argparse.ArgumentParser(add_help=False)
    json_option.add_argument("--json", action="store_true", help="print JSON instead of text")
    against = argparse.ArgumentParser(add_help=False)
    against.add_argument(
        "--against", type=Path, metavar="DIR", help="directory that holds the upstream packages (default: upstream/)"
    )

    def add(name: str, handler: Any, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, parents=[json_option, *parents])
        command.set_defaults(handler=_guarded(handler))
        return command

    add("list", _list, "one line per declared patch")
    show = add("show", _show, "a patch: why, its target in the upstream, and ours", against)
    show.add_argument("id", help="patch id, or the end of one")
    add("verify", _verify, "compare all fingerprints with the upstreams; exit 1 with one line per drift", against)
    fingerprint = add("fingerprint", _fingerprint, "print the fingerprint of a target", against)
    fingerprint.add_argument("target", help="package.module:Class.member")
    fingerprint.add_argument("--kind", help="the patch's kind, where it cannot be told from the target")
    add("markers", _markers, "check that NPU-ADAPTATION comments and declarations name the same places")


def _guarded(handler: Any) -> Any:
    def run(options: argparse.Namespace) -> int:
        try:
            return int(handler(options))
        except OverlayError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    return run


def _roots(options: argparse.Namespace) -> list[Path]:
    return [options.against] if options.against else source.default_roots(REPOSITORY)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _list(options: argparse.Namespace) -> int:
    declarations = static.collect()
    if options.json:
        _print_json([one.as_json() for one in declarations])
        return 0
    for one in declarations:
        print(f"{one.id}\n  {one.kind} {one.target}  ({one.upstream})\n  {one.why}")
    print(f"{len(declarations)} patches")
    return 0


def _pick(wanted: str) -> static.Declaration:
    declarations = static.collect()
    exact = [one for one in declarations if one.id == wanted]
    matches = exact or [one for one in declarations if one.id.endswith(wanted)]
    if len(matches) != 1:
        known = ", ".join(one.id for one in matches or declarations)
        raise OverlayError(f"{len(matches)} patches match {wanted!r}; there are: {known}")
    return matches[0]


def _show(options: argparse.Namespace) -> int:
    one = _pick(options.id)
    found = source.find_target(one.target, one.kind, source.default_roots(REPOSITORY))
    other = source.find_target(one.target, one.kind, _roots(options)) if options.against else found
    diff = [] if other is found else list(
        difflib.unified_diff(
            found.source().splitlines(), other.source().splitlines(), found.where, other.where, lineterm=""
        )
    )  # fmt: skip
    theirs = f"{len(found.source().splitlines())} lines" if one.kind == "submodule" else found.source()
    if options.json:
        _print_json(one.as_json() | {"upstream_at": found.where, "upstream_source": theirs, "ours": one.source(),
                                     "found": other.fingerprint, "diff": diff})  # fmt: skip
        return 0
    print(f"{one.id}  ({one.where})")
    for name in ("kind", "target", "upstream", "why", "remove_when", "when", "fingerprint"):
        if getattr(one, name):
            print(f"  {name + ':':13} {getattr(one, name)}")
    if one.aliases:
        print(f"  aliases:      {', '.join(map(str, one.aliases))}")
    print(f"\n--- upstream: {found.where}\n{theirs}\n\n+++ ours: {one.where}\n{one.source()}")
    if options.against:
        print(f"\n=== {other.where}: {other.fingerprint}")
        print("\n".join(diff) if diff else "(no difference)")
    return 0


def _verify(options: argparse.Namespace) -> int:
    start = time.perf_counter()
    declarations = static.collect()
    roots = _roots(options)
    lines = [line for one in declarations for line in static.drift(one, roots)]
    if options.json:
        _print_json({"patches": len(declarations), "drift": lines})
    else:
        for line in lines:
            print(line, file=sys.stderr)
        verdict = f"{len(lines)} drifted" if lines else "all as pinned"
        print(f"{len(declarations)} patches checked in {time.perf_counter() - start:.2f} s: {verdict}")
    return 1 if lines else 0


def _fingerprint(options: argparse.Namespace) -> int:
    found = source.find_target(parse_target(options.target), options.kind, _roots(options))
    if options.json:
        _print_json({"target": options.target, "fingerprint": found.fingerprint, "where": found.where})
    else:
        print(found.fingerprint)
        print(found.where, file=sys.stderr)
    return 0


def _markers(options: argparse.Namespace) -> int:
    lines = static.unmarked()
    if options.json:
        _print_json(lines)
    else:
        print("\n".join(lines) or "markers and declarations agree")
    return 1 if lines else 0
