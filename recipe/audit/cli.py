# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe patches ...`: list, show, check and document the patches, and tell what was live in a run."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from recipe.audit import catalog, declarations, fit, markers, run_status
from recipe.overlay import drift, source
from recipe.overlay.errors import OverlayError
from recipe.overlay.hook import REPOSITORY
from recipe.overlay.target import parse_target
from recipe.upstreams import upstream_tree

DETAILS = """\
Nothing is imported: neither torch nor an upstream need be installed. `patches ACTION --help` has the options of each.

examples:
  python -m recipe patches list
  python -m recipe patches show protocol:concat                what it changes, beside the upstream's source
  python -m recipe patches verify --against DIR                which patches fit another version of the upstreams
  python -m recipe patches fingerprint verl.protocol:DataProto.concat
  python -m recipe patches status runs/sim                     what was live in which process of a run

exit code: 0 all is as it should be; 1 something is not, or cannot be done (one line each); 2 wrong options
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `patches` command."""
    text = "list, show, check and document the patches laid over the upstreams; exit 1 when something is wrong"
    raw = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser("patches", help=text, description=text + ".", epilog=DETAILS, formatter_class=raw)
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    json_option = argparse.ArgumentParser(add_help=False)
    json_option.add_argument("--json", action="store_true", help="print JSON instead of text")
    against = argparse.ArgumentParser(add_help=False)
    against.add_argument(
        "--against", type=Path, metavar="DIR",
        help="directory that holds upstream packages, for instance of another version (default: upstream/)",
    )  # fmt: skip

    def add(name: str, handler: Any, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, parents=[json_option, *parents])
        command.set_defaults(handler=_guarded(handler))
        return command

    add("list", _list, "what is patched, and why")
    show = add("show", _show, "a patch: why, the upstream source, ours, and what differs from the pinned", against)
    show.add_argument("id", help="patch id, or the end of one")
    add("verify", _verify, "compare all fingerprints with the upstreams; exit 1 with one line per drift", against)
    fingerprint = add("fingerprint", _fingerprint, "print the fingerprint of a target", against)
    fingerprint.add_argument("target", help="package.module:Class.member")
    fingerprint.add_argument("--kind", help="the patch's kind, where it cannot be told from the target")
    add("markers", _markers, "check that NPU-ADAPTATION comments and declarations name the same places")
    listing = add("catalog", _catalog, "write the table of patches into the READMEs and docs/PATCHES.md")
    listing.add_argument("--check", action="store_true", help="change nothing; exit 1 when a file is out of date")
    status = add("status", _status, "what was live where in a run, and in which processes it was not the same")
    status.add_argument("run", type=Path, metavar="RUN_DIR", help="directory of a run, runs/<name>")


def _guarded(handler: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        try:
            return handler(options)
        except OverlayError as error:
            if options.json:
                _print_json({"error": str(error)})
            print(f"error: {error}", file=sys.stderr)
            return 1

    return run


def _pinned_roots() -> list[Path]:
    return source.default_roots(REPOSITORY)


def _roots(options: argparse.Namespace) -> list[Path]:
    if options.against and not options.against.is_dir():
        raise OverlayError(f"--against {options.against} is not a directory")
    return [options.against] if options.against else _pinned_roots()


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _list(options: argparse.Namespace) -> int:
    found = declarations.collect()
    if options.json:
        _print_json([one.as_json() for one in found])
        return 0
    for one in found:
        print(f"{one.id}\n  {one.kind} {one.target}  ({one.upstream})\n  {one.why}")
    print(f"{len(found)} patches")
    return 0


def _pick(wanted: str) -> declarations.Declaration:
    found = declarations.collect()
    exact = [one for one in found if one.id == wanted]
    matches = exact or [one for one in found if one.id.endswith(wanted)]
    if len(matches) != 1:
        known = ", ".join(one.id for one in matches or found)
        raise OverlayError(f"{len(matches)} patches match {wanted!r}; there are: {known}")
    return matches[0]


def _show(options: argparse.Namespace) -> int:
    one = _pick(options.id)
    found = source.find_target(one.target, one.kind, _roots(options))
    # What the patch was written for: the pinned archive's, or else what upstream/ has.
    changes = drift.difference(one.target, one.kind, found).strip("\n")
    if options.against and not changes:
        changes = drift.diff(source.find_target(one.target, one.kind, _pinned_roots()), found).strip("\n")
    theirs = f"{len(found.source().splitlines())} lines" if one.kind == "submodule" else found.source()
    if options.json:
        _print_json(one.as_json() | {"upstream_at": found.where, "upstream_source": theirs, "ours": one.source(),
                                     "found": found.fingerprint, "diff": changes.splitlines()})  # fmt: skip
        return 0
    print(f"{one.id}  ({one.where})")
    for name in ("kind", "target", "upstream", "why", "remove_when", "when"):
        if getattr(one, name):
            print(f"  {name + ':':13} {getattr(one, name)}")
    for name in ("fingerprints", "patched", "aliases"):
        if getattr(one, name):
            print(f"  {name + ':':13} {', '.join(map(str, getattr(one, name)))}")
    print(f"\n--- upstream: {found.where}, {found.fingerprint}\n{theirs}\n\n+++ ours: {one.where}\n{one.source()}")
    if changes or options.against:
        print(f"\n=== pinned -> found\n{changes or '(no difference)'}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    start = time.perf_counter()
    roots, pinned = _roots(options), _pinned_roots()
    if options.against:
        findings = [fit.check(one, roots, pinned, want_patched=False) for one in declarations.collect()]
    else:
        findings = fit.verify(roots)
    bad = [one for one in findings if not one.fits]
    absent = fit.unchecked(findings)
    if findings and all(one.verdict == "absent" for one in findings):
        where = options.against or upstream_tree(REPOSITORY)
        raise OverlayError(f"{where} holds none of {', '.join(absent)}; bring them with: python -m recipe sync")
    if options.json:
        _print_json({"patches": len(findings), "not_checked": absent, "drift": [one.line for one in bad],
                     "findings": [one.as_json() for one in findings]})  # fmt: skip
        return 1 if bad else 0
    if options.against:
        for line in _table(findings, options.against):
            print(line)
    for one in bad:
        print(one.line, file=sys.stderr)
    skipped = sum(one.verdict == "absent" for one in findings)
    verdict = f"{len(bad)} drifted" if bad else "all as pinned"
    note = f", {skipped} not checked ({', '.join(absent)}: not there)" if skipped else ""
    print(f"{len(findings) - skipped} patches checked in {time.perf_counter() - start:.2f} s: {verdict}{note}")
    return 1 if bad else 0


def _table(findings: Iterable[fit.Finding], root: Path) -> list[str]:
    """The drift table, worst first; places are relative to `root`."""
    shown = sorted((one for one in findings if one.verdict != "absent"),
                   key=lambda one: (-fit.VERDICTS.index(one.verdict), one.declaration.id))  # fmt: skip
    width = max((len(one.declaration.id) for one in shown), default=0)
    lines = [f"{'verdict':10}  {'patch':{width}}  where and how"]
    for one in shown:
        how = "; ".join(filter(None, (one.where.removeprefix(f"{root}/"), *one.notes)))
        lines.append(f"{one.verdict:10}  {one.declaration.id:{width}}  {how}".rstrip())
    return lines


def _fingerprint(options: argparse.Namespace) -> int:
    found = source.find_target(parse_target(options.target), options.kind, _roots(options))
    if options.json:
        _print_json({"target": options.target, "fingerprint": found.fingerprint, "where": found.where})
    else:
        print(found.fingerprint)
        print(found.where, file=sys.stderr)
    return 0


def _markers(options: argparse.Namespace) -> int:
    lines = markers.unmarked()
    if options.json:
        _print_json(lines)
    else:
        print("\n".join(lines) or "markers and declarations agree")
    return 1 if lines else 0


def _catalog(options: argparse.Namespace) -> int:
    changed = catalog.outdated() if options.check else catalog.write()
    names = [str(file.relative_to(REPOSITORY)) for file in changed]
    if options.json:
        _print_json({"outdated" if options.check else "written": names})
    elif options.check and names:
        print(f"out of date: {', '.join(names)}; write them with: python -m recipe patches catalog", file=sys.stderr)
    else:
        print(f"written: {', '.join(names)}" if names else "up to date")
    return 1 if options.check and names else 0


def _status(options: argparse.Namespace) -> int:
    run = run_status.read(options.run)
    problems = run.problems()
    never = sorted({one.id for one in declarations.collect()} - set(run.patches()))
    if options.json:
        _print_json({"processes": run.groups(), "patches": {patch: run.where(patch) for patch in run.patches()},
                     "never_imported": never, "problems": problems, "broken_lines": run.broken_lines})  # fmt: skip
        return 1 if problems else 0
    print(f"{len(run.processes)} processes: " + ", ".join(f"{n} {group}" for group, n in run.groups().items()))
    width = max((len(patch) for patch in run.patches()), default=0)
    for patch in run.patches():
        for status, groups in run.where(patch).items():
            print(f"{patch:{width}}  {status:8}  " + ", ".join(f"{n} {group}" for group, n in groups.items()))
    if never:
        print(f"whose upstream module no process imported: {', '.join(never)}")
    if run.broken_lines:
        print(f"{run.broken_lines} lines of the manifest could not be read")
    for line in problems:
        print(line, file=sys.stderr)
    if not problems:
        print("the same in all processes of a kind")
    return 1 if problems else 0
