#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Show that every patch is guarded: its tests pass with it and fail without it.

In a copy of the tree, the tests marked `@pytest.mark.proves("<patch id>")` must pass; then, for one patch at a time,
its declaration is removed (the code stays, but is no patch any more; a source patch is taken out of the sources) and
its tests must fail. Prints a table and exits with 1 unless every patch is proven. Patches of an upstream that is not
there are not run, and listed as such.

exit code: 0 every patch that was run is proven; 1 one is not

examples:
    python scripts/prove_patches.py
    python scripts/prove_patches.py --only protocol:concat

This file is also the pytest plugin that picks those tests.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from recipe.overlay import Declaration

REPOSITORY = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "upstream", "runs", ".cache", "__pycache__", ".*_cache")
RESULTS = "PROVE_PATCHES_RESULTS"
WANTED = "PROVE_PATCHES_IDS"


def _proves(item: pytest.Item) -> set[str]:
    return {patch for marker in item.iter_markers("proves") for patch in marker.args}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that prove one of the wanted patches."""
    wanted = set(os.environ[WANTED].split())
    dropped = [item for item in items if not _proves(item) & wanted]
    items[:] = [item for item in items if _proves(item) & wanted]
    config.hook.pytest_deselected(items=dropped)


def pytest_runtest_makereport(item: pytest.Item, call: Any) -> None:
    """Note per test whether it got through; setup and teardown count."""
    if call.excinfo is not None or call.when == "call":
        skipped = call.excinfo is not None and call.excinfo.typename == "Skipped"
        outcome = "skipped" if skipped else "failed" if call.excinfo is not None else "passed"
        line = json.dumps({"test": item.nodeid, "patches": sorted(_proves(item)), "outcome": outcome})
        with open(os.environ[RESULTS], "a", encoding="utf-8") as out:
            out.write(line + "\n")


def _remove(source: str, first: int) -> str:
    """`source` without the `@patch(...)` decorator that begins in line `first`."""
    lines = source.splitlines(keepends=True)
    for statement in ast.parse(source).body:
        for node in getattr(statement, "decorator_list", ()):
            if node.lineno == first:
                return "".join(lines[: first - 1] + lines[node.end_lineno or first :])
    raise SystemExit(f"no patch in line {first}")


@contextmanager
def _without(tree: Path, patch: Declaration) -> Iterator[None]:
    """Within the block `tree` does not have the patch."""
    mirror = tree / patch.file.relative_to(REPOSITORY)
    source = mirror.read_text(encoding="utf-8")
    if patch.kind != "source":
        mirror.write_text(_remove(source, patch.line), encoding="utf-8")
        yield
        mirror.write_text(source, encoding="utf-8")
        return
    mirror.unlink()
    _git_apply(tree / "upstream", source, "--reverse")
    yield
    mirror.write_text(source, encoding="utf-8")
    _git_apply(tree / "upstream", source)


def _git_apply(upstream: Path, patch: str, *options: str) -> None:
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(upstream.parent)}
    subprocess.run(["git", "apply", *options], input=patch, text=True, cwd=upstream, env=environment, check=True)


def _run(tree: Path, ids: list[str], files: list[Path], timeout: float) -> dict[str, list[str]]:
    """Run the tests of `ids` found in `files`; returns patch -> outcomes ("timeout" added when time ran out)."""
    results = tree / ".prove_results.jsonl"
    results.unlink(missing_ok=True)
    inherited = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and not _is_own(Path(p))]
    path = [str(tree), str(tree / "upstream"), str(tree / "scripts"), *inherited]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), WANTED: " ".join(ids), RESULTS: str(results)}
    environment["RECIPE_UPSTREAM"] = str(tree / "upstream")
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # the same file changes several times within a second
    environment.setdefault("OMP_NUM_THREADS", "1")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "prove_patches", "-p", "no:cacheprovider", *map(str, files)]
    outcomes: dict[str, list[str]] = {patch_id: [] for patch_id in ids}
    with (tree / ".prove_output.log").open("w") as log:
        child = subprocess.Popen(command, cwd=tree, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            child.wait()
            for patch_id in ids:
                outcomes[patch_id].append("timeout")
    for line in results.read_text(encoding="utf-8").splitlines() if results.exists() else ():
        entry = json.loads(line)
        for patch_id in set(entry["patches"]) & outcomes.keys():
            outcomes[patch_id].append(entry["outcome"])
    return outcomes


def _is_own(path: Path) -> bool:
    return path.resolve() in (REPOSITORY, REPOSITORY / "upstream")


def _verdict(before: list[str], after: list[str]) -> str:
    if not before:
        return "NO TEST RAN"
    if set(before) != {"passed"}:
        return f"NOT GREEN WITH IT ({', '.join(sorted(set(before) - {'passed'}))})"
    if "failed" not in after:
        return "NOT PROVEN: green without it" if set(after) == {"passed"} else f"NOT PROVEN: {after or 'nothing ran'}"
    return "proven"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="ID", help="patch ids, or ends of them")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for one run of tests (default 900)")
    options = parser.parse_args()
    sys.path.insert(0, str(REPOSITORY))
    from recipe.audit.declarations import collect

    declarations = collect(REPOSITORY)
    if options.only:
        declarations = [patch for patch in declarations if any(patch.id.endswith(end) for end in options.only)]
    if not declarations:
        print("no such patch", file=sys.stderr)
        return 1
    upstream = Path(os.environ.get("RECIPE_UPSTREAM") or REPOSITORY / "upstream").resolve()
    not_run = [patch for patch in declarations if upstream.is_dir() and not (upstream / patch.package).is_dir()]
    declarations = [patch for patch in declarations if patch not in not_run]
    with tempfile.TemporaryDirectory(prefix="prove-patches-") as scratch:
        tree = Path(scratch, "tree")
        shutil.copytree(REPOSITORY, tree, ignore=LEFT_OUT, symlinks=True)
        if any(patch.kind == "source" for patch in declarations):
            shutil.copytree(upstream, tree / "upstream", ignore=LEFT_OUT)
        elif upstream.is_dir():
            (tree / "upstream").symlink_to(upstream)
        tests = {file: file.read_text(encoding="utf-8") for file in sorted((tree / "tests").rglob("test_*.py"))}
        files = {patch.id: [file for file, text in tests.items() if f'"{patch.id}"' in text] for patch in declarations}
        tested = [patch.id for patch in declarations if files[patch.id]]
        all_files = list(dict.fromkeys(file for test_files in files.values() for file in test_files))
        print(f"with all patches: the tests of {len(tested)} patches in {len(all_files)} files", flush=True)
        before = _run(tree, tested, all_files, options.timeout * max(1, len(tested))) if tested else {}
        bad = 0
        for patch in declarations:
            start, after = time.perf_counter(), []
            if before.get(patch.id):
                with _without(tree, patch):
                    after = _run(tree, [patch.id], files[patch.id], options.timeout)[patch.id]
            verdict = _verdict(before.get(patch.id, []), after)
            bad += verdict != "proven"
            count = f"{len(before.get(patch.id, []))} tests, {after.count('failed')} fail without it"
            print(f"{verdict:12}  {patch.id}  ({count}, {time.perf_counter() - start:.0f} s)", flush=True)
    for patch in not_run:
        print(f"{'NOT RUN':12}  {patch.id}  (bring its upstream: python -m recipe sync --with {patch.package})")
    print(f"{len(declarations) - bad} of {len(declarations)} patches are proven, {len(not_run)} not run")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
