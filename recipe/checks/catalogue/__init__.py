# SPDX-License-Identifier: Apache-2.0
"""Every check, in modules by subject: what a module of this directory declares is listed because it lies here."""

from __future__ import annotations

import importlib
import pkgutil

from recipe.checks.declaration import CATALOGUE, Check


def every_check() -> tuple[Check, ...]:
    """All declared checks, by id."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return tuple(CATALOGUE)


def checks_that_need(*needs: str) -> tuple[Check, ...]:
    """The checks that look at one of these, of `recipe.checks.declaration.NEEDS`, by id."""
    return tuple(check for check in every_check() if check.needs in needs)


def check_named(id: str) -> Check:
    """The check of this id. Raises KeyError where there is none."""
    every_check()
    return CATALOGUE[id]
