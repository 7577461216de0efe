# SPDX-License-Identifier: Apache-2.0
"""The secret that the nodes of a run share: a file of this user's that nobody else on the machine can read."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from recipe.runfile.errors import ConfigError, LaunchError

TOKEN_BYTES = 32
_LEAST_CHARACTERS = 16
_MOST_BYTES = 4096


def read_token(path: Path, make: bool, deadline_s: float, say: Callable[[str], None]) -> bytes:
    """The cluster's token: the head makes it when it is not there, a worker waits for it.

    A link is followed, as to storage that the nodes share; what counts is the file that is opened.

    Raises:
        ConfigError: it cannot be read or made, is another user's, can be read by others, or is no token.
        LaunchError: it is not there at the deadline.
    """
    end, announced = time.monotonic() + deadline_s, False
    while (token := _read(path)) is None:
        if make:
            _make(path)
            say(f"made the cluster's token {path}; the other nodes need the same file")
            make = False
            continue
        if time.monotonic() > end:
            raise LaunchError(f"no token at {path}; copy the head's there (mode 600), or give --token-file")
        if not announced:
            announced = True
            say(f"waiting for the head's token at {path}; copy it here (mode 600), or give --token-file")
        time.sleep(0.5)
    return token


def _read(path: Path) -> bytes | None:
    """What the file holds; None while there is none."""
    try:
        # Should it be a pipe, opening it must not wait for somebody who writes.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); give a --token-file of your own") from None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path} is no file; give another --token-file")
        if status.st_uid not in (os.geteuid(), _seen_as(path.parent)):
            raise ConfigError(f"{path} belongs to another user (uid {status.st_uid}); give a --token-file of your own")
        if status.st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others on this machine; type: chmod 600 {path}")
        token = os.read(file, _MOST_BYTES + 1).strip()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); give another --token-file") from None
    finally:
        os.close(file)
    if not _LEAST_CHARACTERS <= len(token) <= _MOST_BYTES:
        raise ConfigError(
            f"{path} holds no token (at least {_LEAST_CHARACTERS} characters); remove it on the head, which makes a "
            "new one"
        )
    return token


def _seen_as(directory: Path) -> int | None:
    """The owner that a new file of this user has in `directory`: some storage maps root to another user."""
    if os.geteuid() != 0:
        return None
    with suppress(OSError), tempfile.NamedTemporaryFile(dir=directory, prefix=".token-") as probe:
        return os.fstat(probe.fileno()).st_uid
    return None


def _make(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished, name = tempfile.mkstemp(dir=path.parent, prefix=".token-")
        try:
            with open(unfinished, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(TOKEN_BYTES))
            with suppress(FileExistsError):
                os.link(name, path)  # unlike a rename it never replaces one that another launcher made meanwhile
        finally:
            os.unlink(name)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made ({error.strerror}); give another --token-file") from None
