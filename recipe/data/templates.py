# SPDX-License-Identifier: Apache-2.0
"""Named prompt templates, read from ``data/templates.toml`` or a file of the user's."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from recipe.data.records import DataError

TEMPLATES_FILE = Path(__file__).resolve().parents[2] / "data" / "templates.toml"
PLACEHOLDER = "{problem}"
CHAT = "{system}<｜User｜>{user}<｜Assistant｜>"  # noqa: RUF001


@dataclass(frozen=True)
class Template:
    """A prompt template: an optional system message, and a user message with ``{problem}`` in it.

    ``chat`` joins the two into one text.
    """

    name: str
    user: str
    system: str | None = None
    chat: str = CHAT

    def messages(self, problem: str, system: str = "") -> list[dict[str, str]]:
        """Chat messages ``[{"role", "content"}, ...]`` for one problem, as verl's ``prompt`` column holds them.

        ``system``: a system message in the place of the template's; empty for the template's.
        """
        # str.replace and not str.format: problems and templates are full of LaTeX braces.
        user = {"role": "user", "content": self.user.replace(PLACEHOLDER, problem)}
        system = system or self.system or ""
        return [{"role": "system", "content": system}, user] if system else [user]

    def text(self, problem: str, system: str = "") -> str:
        """The prompt as one text, up to where the model's answer begins."""
        parts = {"{system}": system or self.system or "", "{user}": self.messages(problem)[-1]["content"]}
        # In one pass: a problem may hold "{system}" itself.
        return re.sub(r"\{system\}|\{user\}", lambda slot: parts[slot.group()], self.chat)


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
        if not isinstance(table, dict) or not set(table) <= {"system", "user", "chat"}:
            expected = "must be a table with the key 'user' and, optionally, 'system' and 'chat'"
            raise DataError(f"{path}: template '{name}' {expected}")
        user, system, chat = table.get("user"), table.get("system"), table.get("chat", CHAT)
        if not isinstance(user, str) or PLACEHOLDER not in user:
            raise DataError(f"{path}: template '{name}' needs a 'user' text that contains {PLACEHOLDER}")
        if system is not None and not isinstance(system, str):
            raise DataError(f"{path}: template '{name}': 'system' must be a text, found {type(system).__name__}")
        if not isinstance(chat, str) or "{user}" not in chat or (system and "{system}" not in chat):
            wanted = "{system} and {user}" if system else "{user}"
            raise DataError(f"{path}: template '{name}': 'chat' must be a text that contains {wanted}")
        templates[name] = Template(name, user, system, chat)
    return templates


def get_template(name: str, path: Path = TEMPLATES_FILE) -> Template:
    """The template called ``name``, or that of a file of the user's: ``FILE.toml``, ``FILE.toml:NAME``.

    ``DataError`` lists the known names when there is none, or when a file has several and none is named.
    """
    own, _, wanted = name.partition(".toml:")
    if name.endswith(".toml") or wanted:
        path = Path(f"{own}.toml" if wanted else name)
        templates = load_templates(path)
        if not wanted and len(templates) == 1:
            return next(iter(templates.values()))
        if not wanted:
            listed = ", ".join(sorted(templates)) or "none"
            raise DataError(f"{path}: name one of its templates as {path.name}:NAME; it has: {listed}")
        name = wanted
    else:
        templates = load_templates(path)
    if name not in templates:
        listed = ", ".join(sorted(templates))
        raise DataError(f"unknown template '{name}'; {path.name} has: {listed} (or give a file: FILE.toml)")
    return templates[name]
