# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe sync`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from recipe.sources import pins, tree
from recipe.sources.errors import SourcesError

REPOSITORY = Path(__file__).resolve().parents[2]


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `sync` command."""
    text = "bring the pinned upstream sources into upstream/, verified, with the one prelude line"
    parser = subparsers.add_parser("sync", help=text, description=text)
    parser.add_argument("--profile", default="sim", help="sim: package index, for laptops (default); a3: git, for NPUs")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 unless upstream/ is exactly that")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help=argparse.SUPPRESS)
    parser.set_defaults(handler=_run)


def _run(options: argparse.Namespace) -> int:
    start = time.perf_counter()

    def say(line: str) -> None:
        print(line, file=sys.stderr if options.json else sys.stdout, flush=True)

    target = options.root / "upstream"
    result: dict[str, object] = {"profile": options.profile}
    try:
        profile = pins.read_profile(options.root / "upstreams.toml", options.profile)
        if options.check:
            result["differences"] = lines = tree.check(target, profile, say)
            for line in lines:
                say(line)
            verdict = f"{len(lines)} differences" if lines else "exactly the pinned sources and our prelude line"
        else:
            result["changed"] = tree.sync(target, profile, options.root / ".cache", say)
            lines = []
            verdict = "synced" if result["changed"] else "up to date"
    except SourcesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    versions = ", ".join(f"{pin.name} {pin.version}" for pin in profile.pins)
    say(f"upstream/ ({versions}): {verdict}, {time.perf_counter() - start:.1f} s")
    if options.json:
        print(json.dumps(result, indent=2))
    return 1 if lines else 0
