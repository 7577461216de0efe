# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe sync`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from recipe.sources import compose, fetch, pins, recognise, swap, tree
from recipe.sources.adopted import Adopted, remembered
from recipe.sources.errors import SourcesError, UsageError
from recipe.sources.index import Say
from recipe.sources.prelude import insert_into, take_out_of
from recipe.upstreams import upstream_tree

COMMANDS = ("sync",)
REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = "bring the pinned upstream sources into upstream/, verified, with the one prelude line and our source patches"
DETAILS = """\
What is pinned stands in upstreams.toml; what was done stands in upstream/MANIFEST.json. Everything is fetched, checked
and patched before a file is written, and the new tree takes the old one's place in one step. A second call does
nothing. Downloads are kept in $RECIPE_CACHE_DIR (else in your cache directory), so that later calls need no network.
$RECIPE_UPSTREAM names another place than upstream/, here and in every other command.

Adopted trees stay where they are, and nothing in them is changed unless --insert-line asks for it: upstream/ shows them
through links, with ours beside these, and later calls keep them. They are known by their content, compared with the
pinned files where these are at hand, and refused where a patch does not fit.

examples:
  python -m recipe sync                                the sim profile, or what upstream/ holds already, renewed
  python -m recipe sync --with mindspeed               with the a3 profile's MindSpeed beside it, from now on
  python -m recipe sync --with mindspeed --from mindspeed=/src/MindSpeed
                                                       the pinned commit out of a clone (never its work tree)
  python -m recipe sync --from vllm=/mnt/files         an archive, or the directory that holds it, by its SHA-256
  python -m recipe sync --adopt .                      trees that were copied or linked here by hand, as they are
  python -m recipe sync --adopt /workspace/vllm /src/verl/verl --insert-line
                                                       a checkout, and a package; the line is put into theirs, too
  python -m recipe sync --unadopt verl                 the pinned verl again
  python -m recipe sync --check                        prove that upstream/ is exactly "pinned + ours"
  python -m recipe sync --restore                      the pinned sources and nothing of ours; `sync` brings ours back

exit code: 0 done, or exactly that; 1 it is not, or could not be done (one line says why); 2 wrong options or names
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `sync` command."""
    parser = subparsers.add_parser(
        "sync", help=TEXT, description=TEXT + ".", epilog=DETAILS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", metavar="NAME", help="sim: package index, for laptops; a3: git, for NPUs "
                        "(default: that of upstream/ as it is, sim for a new one)")  # fmt: skip
    parser.add_argument("--with", dest="add", action="append", default=[], metavar="NAME",
                        help="also bring this upstream of another profile; later calls keep it")  # fmt: skip
    parser.add_argument("--without", dest="drop", action="append", default=[], metavar="NAME",
                        help="no longer bring what --with has brought")  # fmt: skip
    parser.add_argument("--from", dest="sources", action="append", default=[], metavar="NAME=PATH",
                        help="take this upstream from a git clone, or from its archive or a directory")  # fmt: skip
    parser.add_argument("--unadopt", action="append", default=[], metavar="NAME",
                        help="take the pinned package again; the adopted tree stays as it is")  # fmt: skip
    parser.add_argument("--accept-differences", action="store_true",
                        help="with --adopt: adopt trees in which files differ from the pinned ones, too")  # fmt: skip
    parser.add_argument("--insert-line", action="store_true",
                        help="also put the prelude line into the adopted tree, for processes of others")  # fmt: skip
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--adopt", nargs="+", action="extend", default=[], type=Path, metavar="DIR",
                        help="run these for the pinned: a package's directory, or one that holds some")  # fmt: skip
    action.add_argument("--check", action="store_true", help="change nothing; exit 1 unless upstream/ is exactly that")
    action.add_argument("--restore", action="store_true", help="take ours off: the pinned sources as they are")
    parser.add_argument("--json", action="store_true", help='print the result, or {"error": ...}, as JSON')
    parser.add_argument("--root", type=Path, default=REPOSITORY, help=argparse.SUPPRESS)
    parser.set_defaults(handler=_run)


def _run(options: argparse.Namespace) -> int:
    start = time.perf_counter()

    def say(line: str) -> None:
        print(line, file=sys.stderr if options.json else sys.stdout, flush=True)

    try:
        result = _done(options, say)
    except SourcesError as error:
        return _failed(str(error), error.exit_code, options.json)
    except KeyboardInterrupt:
        return _failed(f"interrupted; {_shown(options)} is whole, run sync again", 130, options.json)
    lines = result.get("differences", [])
    for line in lines[: len(lines) if len(lines) > 1 else 0]:
        say(line)
    versions = ", ".join(f"{name} {upstream['version']}" for name, upstream in result["upstreams"].items())
    say(f"{_shown(options)} ({versions}): {_verdict(result)}, {time.perf_counter() - start:.1f} s")
    if options.json:
        print(json.dumps(result, indent=2))
    return 1 if lines else 0


def _failed(message: str, code: int, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": message}, indent=2))
    else:
        print(f"error: {message}", file=sys.stderr)
    return code


def _shown(options: argparse.Namespace) -> str:
    """The tree as it is called in messages."""
    target, root = upstream_tree(options.root), options.root.absolute()
    return f"{target.relative_to(root) if target.is_relative_to(root) else target}/"


def _scratch(options: argparse.Namespace) -> Path:
    """Where sync works: on the disk of the tree, and nobody else's."""
    target = upstream_tree(options.root)
    own = target == options.root.absolute() / "upstream"
    return options.root / ".cache" if own else target.with_name(f".{target.name}.sync")


def _done(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Do what the options say; the result as it is printed with --json."""
    target = upstream_tree(options.root)
    manifest = swap.read_manifest(target) or {}
    if os.environ.get("RECIPE_UPSTREAM") and not manifest and target.is_dir() and any(target.iterdir()):
        raise UsageError(
            f"RECIPE_UPSTREAM={target} was not made by sync, which would replace it; name a new directory, and to run "
            f"the trees in it as they are, type: python -m recipe sync --adopt {target}"
        )
    every = pins.read_pins(options.root / "upstreams.toml")
    taken = _taken(options, manifest, every, target)
    profile = _profile(options, manifest, every, taken)
    taken = {package: one for package, one in taken.items() if any(package in pin.packages for pin in profile.pins)}
    for pin, source in _sources(options, profile):
        fetch.bring_from(pin, source)
    wanted = compose.wanted(profile, options.root, options.restore, taken.values())
    if options.check:
        lines = tree.check(target, wanted, say)
        outcome: dict[str, Any] = {"state": manifest.get("state"), "exact": not lines, "differences": lines}
    else:
        changed = tree.sync(target, wanted, _scratch(options), say, anew=bool(options.adopt))
        package = profile.prelude.file.partition("/")[0]
        was_in = package in remembered(manifest) and remembered(manifest)[package].line
        written = _line_in_theirs(profile.prelude, taken.get(package), was_in, options.restore, say)
        outcome = {"changed": written or changed}
    described = wanted.manifest(compose.Tree({}, {}))
    kept = ("profile", "beside", "state", "upstreams", "prelude", "source_patches")
    adopted = (swap.read_manifest(target) or {}).get("adopted", {})
    return {"upstream": str(target), "adopted": adopted} | {key: described[key] for key in kept} | outcome


def _taken(options: argparse.Namespace, manifest: dict[str, Any], every: pins.Pins, target: Path) -> dict[str, Adopted]:
    """The adopted trees by package: the remembered ones, as the options change them."""
    taken = remembered(manifest)
    for name in options.unadopt:
        if taken.pop(name, None) is None:
            raise UsageError(f"--unadopt {name}: adopted is {', '.join(taken) or 'nothing'}")
    if options.accept_differences and not options.adopt:
        raise UsageError("--accept-differences goes with --adopt DIR")
    if options.check and (options.unadopt or options.insert_line):
        raise UsageError("--check changes nothing; leave --unadopt and --insert-line to another call")
    if options.adopt:
        found = recognise.found(
            [path.expanduser() for path in options.adopt], recognise.marks(every, options.root, target)
        )
        for package, path in found.items():
            if path.resolve().is_relative_to(target.resolve()):
                raise UsageError(
                    f"--adopt {path}: it is in {target}, which sync makes anew; move it out of there first"
                )
            before = taken.get(package)
            same = before if before is not None and before.path == path else Adopted(package, path)
            taken[package] = replace(same, accept=options.accept_differences)
    if options.insert_line:
        prelude = next(iter(every.profiles.values())).prelude
        package = prelude.file.partition("/")[0]
        if package not in taken:
            raise UsageError(f"--insert-line: no adopted tree holds {prelude.file}; add --adopt DIR")
        taken[package] = replace(taken[package], line=True)
    if options.restore:
        taken = {package: replace(one, line=False) for package, one in taken.items()}
    return taken


def _line_in_theirs(prelude: pins.Prelude, one: Adopted | None, was_in: bool, restored: bool, say: Say) -> bool:
    """Put the line into the adopted tree where that was asked for, or take it out again; whether it changed."""
    if one is None:
        return False
    file = one.path / prelude.file.partition("/")[2]
    if one.line and insert_into(file, prelude):
        say(f"put {prelude.line!r} into {file}")
    elif restored and was_in and take_out_of(file, prelude):
        say(f"took {prelude.line!r} out of {file}")
    else:
        if one.line:
            say(f"{file} has {prelude.line!r}")
        return False
    return True


def _profile(
    options: argparse.Namespace, manifest: dict[str, Any], every: pins.Pins, taken: Iterable[str]
) -> pins.Profile:
    """The profile that the options ask for, with what an earlier --with has put beside it and what is adopted."""
    name = options.profile or manifest.get("profile", "sim")
    every.profile(name, options.add + options.drop)  # for its errors only: it refuses unknown names
    contradictory = set(options.add) & set(options.drop)
    if contradictory:
        raise UsageError(f"--with {min(contradictory)} and --without {min(contradictory)}: choose one")
    known = {pin.name for profile in every.profiles.values() for pin in profile.pins}
    kept = known & set(manifest.get("beside", ())) - set(options.drop)
    own = {package for pin in every.profiles[name].pins for package in pin.packages}
    beside = {
        pin.name
        for profile in every.profiles.values()
        for pin in profile.pins
        if set(pin.packages) & set(taken) - own and pin.name not in options.drop
    }
    profile = every.profile(name, kept | set(options.add) | beside)
    lost = {pin.name for pin in every.profiles[name].pins} & set(options.drop)
    if lost:
        raise UsageError(f"--without {min(lost)}: it is part of profile {name} itself, which cannot do without")
    return profile


def _sources(options: argparse.Namespace, profile: pins.Profile) -> list[tuple[pins.Pin, Path]]:
    """The pins and paths that --from names."""
    sources = []
    for text in options.sources:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise UsageError(f"--from {text}: expected NAME=PATH, for instance --from verl=/src/verl")
        pin = profile.pin(name)
        if pin is None:
            raise UsageError(
                f"--from {text}: profile {profile.name} has no upstream {name!r}; it has "
                f"{', '.join(pin.name for pin in profile.pins)} (others: add --with NAME)"
            )
        sources.append((pin, Path(path).expanduser()))
    return sources


def _verdict(result: dict[str, Any]) -> str:
    lines = result.get("differences", [])
    if lines:
        return lines[0] if len(lines) == 1 else f"{len(lines)} differences"
    ours = _what(result["adopted"])
    if result["state"] == "ours":
        patches = len(result["source_patches"])
        ours += ", our prelude line" + (f" and {patches} source patch{'es' * (patches > 1)}" if patches else "")
    if "changed" in result:
        return ("synced: " if result["changed"] else "up to date: ") + ours
    return ours


def _what(adopted: dict[str, Any]) -> str:
    """What the tree holds, before ours."""
    if not adopted:
        return "exactly the pinned sources"
    differs = sum(len(entry["accepted"]) for entry in adopted.values())
    unknown = [package for package, entry in adopted.items() if not entry["compared"]]
    notes = [f"{differs} files other than pinned"] if differs else []
    notes += [f"{', '.join(unknown)} not compared file by file"] if unknown else []
    verdict = f" ({'; '.join(notes)})" if notes else ", as pinned"
    return f"{', '.join(adopted)} adopted{verdict}"
