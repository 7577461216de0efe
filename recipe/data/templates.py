# SPDX-License-Identifier: Apache-2.0
"""Named prompt templates, read from ``data/templates.toml``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from recipe.data.rows import DataError

TEMPLATES_FILE = Path(__file__).resolve().parents[2] / "data" / "templates.toml"
PLACEHOLDER = "{problem}"


@dataclass(frozen=True)
class Template:
    """A prompt template: an optional system message, and a user message with ``{problem}`` in it."""

    name: str
    user: str
    system: str | None = None

    def messages(self, problem: str) -> list[dict[str, str]]:
        """Chat messages ``[{"role", "content"}, ...]`` for one problem, as verl's ``prompt`` column holds them."""
        # str.replace and not str.format: problems and templates are full of LaTeX braces.
        user = {"role": "user", "content": self.user.replace(PLACEHOLDER, problem)}
        return [user] if self.system is None else [{"role": "system", "content": self.system}, user]


def load_templates(path: Path = TEMPLATES_FILE) -> dict[str, Template]:
    """All templates of a TOML file by name.

    Raises ``DataError`` when the file is missing, is no TOML, or has a table without a ``user`` text that holds
    ``{problem}``.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"templates file {path}: {error}") from error
    templates = {}
    for name, table in tables.items():
        if not isinstance(table, dict) or not set(table) <= {"system", "user"}:
            raise DataError(f"{path}: template '{name}' must be a table with the keys 'user' and, optionally, 'system'")
        user, system = table.get("user"), table.get("system")
        if not isinstance(user, str) or PLACEHOLDER not in user:
            raise DataError(f"{path}: template '{name}' needs a 'user' text that contains {PLACEHOLDER}")
        if system is not None and not isinstance(system, str):
            raise DataError(f"{path}: template '{name}': 'system' must be a text, found {type(system).__name__}")
        templates[name] = Template(name, user, system)
    return templates


def get_template(name: str, path: Path = TEMPLATES_FILE) -> Template:
    """The template called ``name``; ``DataError`` lists the known names when there is none."""
    templates = load_templates(path)
    if name not in templates:
        raise DataError(f"unknown template '{name}'; {path.name} has: {', '.join(sorted(templates))}")
    return templates[name]
