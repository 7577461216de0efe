# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe patches ...`: list, show, check and document the patches, and tell what was live in a run."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from recipe.audit import by_model, catalog, declarations, fit, markers, run_status
from recipe.overlay import drift, source
from recipe.overlay.declaration import Declaration
from recipe.overlay.errors import OverlayError
from recipe.overlay.target import parse_target
from recipe.own_packages import REPOSITORY
from recipe.upstreams import upstream_tree

COMMANDS = ("patches",)
DETAILS = """\
Nothing is imported: neither torch nor an upstream need be installed. `patches ACTION --help` has the options of each.

examples:
  python -m recipe patches list
  python -m recipe patches list --model qwen3_8b               what concerns models like this
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

    listed = add("list", _list, "what is patched, and why")
    listed.add_argument(
        "--model", metavar="MODEL",
        help="only what concerns this model: a name that [model] architecture takes, a model_type, or a directory with "
        "config.json",
    )  # fmt: skip
    show = add("show", _show, "a patch: why, the upstream source, ours, and what differs from the pinned", against)
    show.add_argument("id", help="patch id, or the end of one")
    add("verify", _verify, "compare all fingerprints with the upstreams; exit 1 with one line per drift", against)
    fingerprint = add("fingerprint", _fingerprint, "print the fingerprint of a target", against)
    fingerprint.add_argument("target", help="package.module:Class.member")
    fingerprint.add_argument("--kind", help="the patch's kind, where it cannot be told from the target")
    add("markers", _markers, "check that NPU-ADAPTATION comments stand in all that declarations use, and nowhere else")
    listing = add("catalog", _catalog, "write docs/PATCHES.md, and the number of patches into the READMEs")
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
    tree = upstream_tree(REPOSITORY)
    if os.environ.get("RECIPE_UPSTREAM") and not tree.is_dir():
        raise OverlayError(
            f"RECIPE_UPSTREAM={tree} is not there; bring the sources: python -m recipe sync, or unset it"
        )
    return source.default_roots(REPOSITORY)


def _roots(options: argparse.Namespace) -> list[Path]:
    if options.against and not options.against.is_dir():
        raise OverlayError(f"--against {options.against} is not a directory")
    return [options.against] if options.against else _pinned_roots()


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _list(options: argparse.Namespace) -> int:
    every = declarations.collect()
    patches = every if options.model is None else by_model.concerning(by_model.family_named(options.model), every)
    if options.json:
        _print_json([declarations.as_json(patch) for patch in patches])
        return 0
    for patch in patches:
        print(f"{patch.id}\n  {patch.kind} {patch.target}  ({patch.upstream})\n  {patch.why}")
        if models := by_model.models_of(patch.id):
            print(f"  for models of {', '.join(models)}")
    others = f", and {len(every) - len(patches)} for other models alone" if len(patches) < len(every) else ""
    print(f"{len(patches)} patches{others}")
    return 0


def _pick(wanted: str) -> Declaration:
    patches = declarations.collect()
    exact = [patch for patch in patches if patch.id == wanted]
    matches = exact or [patch for patch in patches if patch.id.endswith(wanted)]
    if len(matches) != 1:
        known = ", ".join(patch.id for patch in matches or patches)
        raise OverlayError(f"{len(matches)} patches match {wanted!r}; there are: {known}")
    return matches[0]


def _show(options: argparse.Namespace) -> int:
    from recipe.sources.pristine import module_text  # not at the top: no other action reads the pinned archives

    patch = _pick(options.id)
    excerpt = source.find_target(patch.target, patch.kind, _roots(options))
    # What the patch was written for: the pinned archive's, or else what upstream/ has.
    changes = drift.difference(patch, excerpt, module_text).strip("\n")
    if options.against and not changes:
        changes = drift.diff(source.find_target(patch.target, patch.kind, _pinned_roots()), excerpt).strip("\n")
    upstream_text = f"{len(excerpt.source().splitlines())} lines" if patch.kind == "submodule" else excerpt.source()
    ours = declarations.text_of(patch)
    if options.json:
        _print_json(declarations.as_json(patch) | {
            "upstream_at": excerpt.where, "upstream_source": upstream_text, "ours": ours, "found": excerpt.fingerprint,
            "diff": changes.splitlines(),
        })  # fmt: skip
        return 0
    print(f"{patch.id}  ({patch.where})")
    for label, values in (
        ("kind", [patch.kind]), ("target", [patch.target]), ("upstream", [patch.upstream]), ("why", [patch.why]),
        ("can go when", [patch.remove_when]), ("left out where", filter(None, [patch.otherwise])),
        ("for models of", by_model.models_of(patch.id)),
        ("fingerprints", patch.fingerprints), ("patched", patch.patched), ("also at", patch.aliases),
    ):  # fmt: skip
        if text := ", ".join(map(str, values)):
            print(f"  {label + ':':15} {text}")
    print(f"\n--- upstream: {excerpt.where}, {excerpt.fingerprint}\n{upstream_text}\n\n+++ ours: {patch.where}\n{ours}")
    if changes or options.against:
        print(f"\n=== pinned -> found\n{changes or '(no difference)'}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    start = time.perf_counter()
    roots, pinned = _roots(options), _pinned_roots()
    if options.against:
        findings = [fit.check(patch, roots, pinned, want_patched=False) for patch in declarations.collect()]
    else:
        findings = fit.verify(roots)
    drifted = [finding for finding in findings if not finding.fits]
    absent = fit.unchecked(findings)
    if findings and all(finding.verdict == "absent" for finding in findings):
        where = options.against or upstream_tree(REPOSITORY)
        raise OverlayError(f"{where} holds none of {', '.join(absent)}; bring them with: python -m recipe sync")
    if options.json:
        _print_json({"patches": len(findings), "not_checked": absent, "drift": [finding.line for finding in drifted],
                     "findings": [finding.as_json() for finding in findings]})  # fmt: skip
        return 1 if drifted else 0
    if options.against:
        for line in _table(findings, options.against):
            print(line)
    for finding in drifted:
        print(finding.line, file=sys.stderr)
    skipped = sum(finding.verdict == "absent" for finding in findings)
    verdict = f"{len(drifted)} drifted" if drifted else "all as pinned"
    note = f", {skipped} not checked ({', '.join(absent)}: not there)" if skipped else ""
    print(f"{len(findings) - skipped} patches checked in {time.perf_counter() - start:.2f} s: {verdict}{note}")
    return 1 if drifted else 0


def _table(findings: Iterable[fit.Fit], root: Path) -> list[str]:
    """The drift table, worst first; places are relative to `root`."""
    shown = sorted((finding for finding in findings if finding.verdict != "absent"),
                   key=lambda finding: (-fit.VERDICTS.index(finding.verdict), finding.declaration.id))  # fmt: skip
    width = max((len(finding.declaration.id) for finding in shown), default=0)
    lines = [f"{'verdict':10}  {'patch':{width}}  where and how"]
    for finding in shown:
        how = "; ".join(filter(None, (finding.where.removeprefix(f"{root}/"), *finding.notes)))
        lines.append(f"{finding.verdict:10}  {finding.declaration.id:{width}}  {how}".rstrip())
    return lines


def _fingerprint(options: argparse.Namespace) -> int:
    excerpt = source.find_target(parse_target(options.target), options.kind, _roots(options))
    if options.json:
        _print_json({"target": options.target, "fingerprint": excerpt.fingerprint, "where": excerpt.where})
    else:
        print(excerpt.fingerprint)
        print(excerpt.where, file=sys.stderr)
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
    never = sorted({patch.id for patch in declarations.collect()} - set(run.patches()))
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
