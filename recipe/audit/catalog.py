# SPDX-License-Identifier: Apache-2.0
"""The catalogue of patches in docs/PATCHES.md and their number in the READMEs, generated from the declarations."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from recipe.audit.by_model import models_of
from recipe.audit.declarations import collect
from recipe.audit.parts import apart, served
from recipe.marked_text import with_part
from recipe.overlay.declaration import Declaration
from recipe.overlay.errors import OverlayError
from recipe.own_packages import REPOSITORY

BEGIN = "<!-- patches: written by `python -m recipe patches catalog` -->"
END = "<!-- patches: end -->"
SUMMARY_IN = ("README.md", "README_zh.md")
CATALOG = "docs/PATCHES.md"

_PREFACE = """# The patches

Every change that is laid over the upstreams, generated from the declarations by `python -m recipe patches catalog`.
`python -m recipe patches show ID` prints a patch beside the upstream source that it changes.

Kinds, from the least to the most intrusive: `registry` sets an entry of an upstream table, `submodule` puts a module in
the place of a module, `wrap` calls the original, `replace` does not, `source` changes the copied-in file. A patch that
is *left out* somewhere says so, and why, in the run's manifest. *For models of* names the model_types of config.json
for which alone a patch changes anything; `python -m recipe patches list --model MODEL` leaves out those of others.
*Together with* names the modules that hold a part of the change; `grep -rn NPU-ADAPTATION *_patches` shows them all,
and `python -m recipe patches markers` proves that.
"""

_APART = """## Beside the patches

Modules under the same packages that take no part in any of these changes: an upstream is told of them by its own
configuration, or imports them by the one line of ours in it.
"""


def files(root: Path = REPOSITORY) -> dict[Path, str]:
    """What the catalogue's files are to hold: path -> text.

    Raises OverlayError when a README has no place for the number of patches.
    """
    declarations = collect(root)
    texts = {root / CATALOG: _catalog(declarations, root)}
    for name in SUMMARY_IN:
        try:
            texts[root / name] = with_part(root / name, BEGIN, END, _summary(declarations))
        except ValueError as error:
            raise OverlayError(str(error)) from error
    return texts


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
    for patch in declarations:
        packages.setdefault(patch.package, []).append(patch)
    return packages


def _summary(declarations: list[Declaration]) -> str:
    """How many there are, and of each upstream, the most first; the same in every language."""
    upstreams = Counter(patch.upstream.partition("==")[0] for patch in declarations)
    counts = " · ".join(f"{name} {count}" for name, count in upstreams.most_common())
    return f"**{len(declarations)}**: {counts}"


def _catalog(declarations: list[Declaration], root: Path) -> str:
    parts = served(declarations, root)
    texts = [_PREFACE]
    for package, patches in _by_package(declarations).items():
        texts.append(f"## {package}: {len(patches)}\n")
        for patch in patches:
            beside = [_link(file, root) for file, users in parts.items() if patch in users]
            lines = {
                "patch": f"[`{patch.id}`](../{patch.file.relative_to(root)}), {patch.kind}, for {patch.upstream}",
                "why": patch.why,
                "left out where": patch.otherwise,
                "for models of": ", ".join(f"`{model_type}`" for model_type in models_of(patch.id)),
                "together with": ", ".join(beside),
                "also at": ", ".join(f"`{alias}`" for alias in patch.aliases),
                "can go when": patch.remove_when,
            }
            items = [f"- **{title}**: {text}\n" for title, text in lines.items() if text]
            texts.append(f"### `{patch.target}`\n\n{''.join(items)}")
    helpers = apart(declarations, parts, root)
    if helpers:
        texts += [_APART, "".join(f"- {_link(file, root)}: {text}\n" for file, text in helpers.items())]
    return "\n".join(texts)


def _link(file: Path, root: Path) -> str:
    name = file.relative_to(root)
    return f"[`{name}`](../{name})"
