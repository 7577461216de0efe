# SPDX-License-Identifier: Apache-2.0
"""Which commands there are, and which room has each: a room's `cli.py` says so in a line `COMMANDS = ("name", ...)`.

The line is read from the file's text. Importing every room to learn one name would make each command as slow as all.
"""

from __future__ import annotations

import ast
from pathlib import Path

_BEGINNING = "COMMANDS = "


def command_modules(package: Path = Path(__file__).parent) -> dict[str, str]:
    """The module that registers each command of `package`, by the command's name; rooms in the order of their names.

    Raises:
        ValueError: a `cli.py` names no command, or one that another room has.
    """
    modules: dict[str, str] = {}
    for file in sorted(package.glob("*/cli.py")):
        module = f"{package.name}.{file.parent.name}.cli"
        line = next((line for line in file.read_text("utf-8").splitlines() if line.startswith(_BEGINNING)), None)
        if line is None:
            raise ValueError(f'{file} names no command; expected a line {_BEGINNING}("name", ...)')
        for command in ast.literal_eval(line[len(_BEGINNING) :]):
            if command in modules:
                raise ValueError(f"{file}: the command {command} is that of {modules[command]} already")
            modules[command] = module
    return modules
