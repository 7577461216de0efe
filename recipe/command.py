# SPDX-License-Identifier: Apache-2.0
"""How a command ends that may fail late: an exit code and at most one line, whatever has happened."""

from __future__ import annotations

import errno
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from recipe.runfile.errors import LaunchError
from recipe.runfile.masking import scrub
from recipe.terminal import unfailing_output
from recipe.text import error_text, printable

_ROOM = "make room there and type the same command again, or name another place in RECIPE_RUNS"
_ACCESS = "run as the user it belongs to, or name another place in RECIPE_RUNS"
# Errors of the machine, not defects of ours, and what a person can do about each.
_HINTS = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: "name another place in RECIPE_RUNS",
    errno.EACCES: _ACCESS,
    errno.EPERM: _ACCESS,
    errno.EIO: "look at that disk, and at dmesg",
    errno.ESTALE: "the file server has lost it; mount it again",
    errno.EMFILE: "raise `ulimit -n`",
    errno.ENFILE: "the machine has too many open files",
    errno.ENOMEM: "the machine is out of memory",
    errno.EAGAIN: "raise `ulimit -u`",
}


def run_command(work: Callable[[], None], errors: Path) -> int:
    """Do the work of a command; returns its exit code.

    Args:
        work: raises LaunchError for what a person can act on; output that cannot be written does not end it.
        errors: directory for the traceback of anything else.
    """
    with unfailing_output():
        problem = caught(work, errors, {})
        if problem is None:
            return 0
        if problem.exit_code:
            print(f"error: {printable(str(problem))}", file=sys.stderr)
        else:
            print(printable(str(problem)))
        return problem.exit_code


def caught(work: Callable[[], None], errors: Path, environment: Mapping[str, str]) -> LaunchError | None:
    """Do the work of a run; returns what a person is told of its failure, None where there is none.

    Args:
        work: may raise anything; only the error of a package that is not installed is passed on.
        errors: directory for the traceback of what is a mistake of ours.
        environment: variables whose secret values nobody is told.
    """
    try:
        work()
    except ModuleNotFoundError:
        raise  # `recipe.__main__` says which, and what to install
    except Exception as error:
        problem = in_one_line(error, errors)
        scrub(problem, environment)
        return problem
    return None


def in_one_line(error: Exception, errors: Path) -> LaunchError:
    """`error` as one line: itself if a person can act on it, else what the machine refused, or where the traceback is.

    Args:
        error: anything.
        errors: directory for the traceback of what is a mistake of ours.
    """
    if isinstance(error, LaunchError):
        return error
    if isinstance(error, OSError) and error.errno in _HINTS:
        where = f"{error.filename}: " if error.filename else ""
        return LaunchError(f"{where}{error.strerror}; {_HINTS[error.errno]}")
    text = error_text(error)
    file = errors / "launcher-error.log"
    try:
        errors.mkdir(parents=True, exist_ok=True)
        with open(file, "a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(time.strftime("%Y-%m-%d %H:%M:%S\n") + "".join(traceback.format_exception(error)))
    except OSError:
        return LaunchError(f"a mistake in the launcher, please report it: {text}")
    return LaunchError(f"a mistake in the launcher, please report it with {file}: {text}")
