# SPDX-License-Identifier: Apache-2.0
"""What is said of an exception that nobody expected: enough to report it, in one line."""

from __future__ import annotations

import traceback
from pathlib import Path

from recipe.own_packages import REPOSITORY, own_packages
from recipe.runfile.errors import Interrupted
from recipe.text import error_text

REQUEST = "this is a fault of the recipe's own, please report this line"
_LONGEST = 300


def account(error: BaseException) -> str:
    """Type and message of an exception, the line of ours that it came through last, and that it should be reported."""
    return f"could not look: {error_text(error)[:_LONGEST]} (at {_place(error)}); {REQUEST}"


def asks_to_stop(error: BaseException) -> bool:
    """Whether it is not a fault but somebody who ends the command: Ctrl-C, or a stop signal while a launcher runs."""
    return isinstance(error, (KeyboardInterrupt, Interrupted))


def _place(error: BaseException) -> str:
    """FILE:LINE of the innermost frame that is ours, from the repository's root on."""
    place = "unknown place"
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(REPOSITORY) and file.relative_to(REPOSITORY).parts[0] in own_packages():
            place = f"{file.relative_to(REPOSITORY)}:{line}"
    return place
