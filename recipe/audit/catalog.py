# SPDX-License-Identifier: Apache-2.0
"""The catalogue of patches, generated from the declarations into the READMEs and docs/PATCHES.md."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from recipe.audit.declarations import Declaration, collect
from recipe.overlay.errors import OverlayError
from recipe.overlay.hook import REPOSITORY

BEGIN = "<!-- patches: written by `python -m recipe patches catalog` -->"
END = "<!-- patches: end -->"
SUMMARY_IN = ("README.md", "README_zh.md")
CATALOG = "docs/PATCHES.md"
_HEADINGS = {"README.md": ("upstream", "kind", "only when"), "README_zh.md": ("上游", "种类", "仅当")}

_PREFACE = """# The patches

Every change that is laid over the upstreams, generated from the declarations by `python -m recipe patches catalog`.
`python -m recipe patches show ID` prints a patch beside the upstream source that it changes.

Kinds, from the least to the most intrusive: `registry` sets an entry of an upstream table, `subclass` puts a subclass
in the place of a class, `submodule` a module in the place of a module, `wrap` calls the original, `replace` does not,
`source` changes the copied-in file. A patch with a condition (*only when*) is left out, and says so in the run's
manifest, where the condition does not hold.
"""


def files(root: Path = REPOSITORY) -> dict[Path, str]:
    """What the catalogue's files are to hold: path -> text.

    Raises OverlayError when a README has no place for the table.
    """
    declarations = collect(root)
    wanted = {root / CATALOG: _catalog(declarations, root)}
    for name in SUMMARY_IN:
        file = root / name
        text = file.read_text(encoding="utf-8")
        if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
            raise OverlayError(f"{file} must have the line {BEGIN!r} once and, below it, the line {END!r} once")
        before, rest = text.split(BEGIN)
        wanted[file] = f"{before}{BEGIN}\n{_summary(declarations, _HEADINGS[name], root)}{END}{rest.split(END)[1]}"
    return wanted


def outdated(root: Path = REPOSITORY) -> list[Path]:
    """The files that do not hold what they should."""
    return _outdated(files(root))


def _outdated(wanted: dict[Path, str]) -> list[Path]:
    return [file for file, text in wanted.items() if not file.is_file() or file.read_text("utf-8") != text]


def write(root: Path = REPOSITORY) -> list[Path]:
    """Bring all files up to date, each by a rename; returns those that changed."""
    wanted = files(root)
    changed = _outdated(wanted)
    for file in changed:
        file.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, delete=False) as out:
            out.write(wanted[file])
        os.chmod(out.name, 0o644)
        Path(out.name).replace(file)
    return changed


def _by_package(declarations: Iterable[Declaration]) -> dict[str, list[Declaration]]:
    packages: dict[str, list[Declaration]] = {}
    for one in declarations:
        packages.setdefault(one.package, []).append(one)
    return packages


def _summary(declarations: list[Declaration], headings: tuple[str, ...], root: Path) -> str:
    lines = [_row(headings), "|---|---|---|"]
    for one in declarations:
        place = f"[`{one.target}`]({one.file.relative_to(root)})"
        lines.append(_row((place, one.kind, f"`{one.when}`" if one.when else "")))
    return "\n".join(lines) + "\n"


def _catalog(declarations: list[Declaration], root: Path) -> str:
    parts = [_PREFACE]
    for package, some in _by_package(declarations).items():
        parts.append(f"## {package}: {len(some)}\n")
        for one in some:
            file = one.file.relative_to(root)
            parts.append(
                f"### `{one.target}`\n\n"
                f"- **patch**: [`{one.id}`](../{file}), {one.kind}, for {one.upstream}\n"
                f"- **why**: {one.why}\n"
                + (f"- **only when**: `{one.when}`\n" if one.when else "")
                + (f"- **also at**: {', '.join(f'`{alias}`' for alias in one.aliases)}\n" if one.aliases else "")
                + f"- **can go when**: {one.remove_when}\n"
            )
    return "\n".join(parts)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
