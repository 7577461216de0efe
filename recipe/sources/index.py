# SPDX-License-Identifier: Apache-2.0
"""Download exact files from the package index that pip is configured for.

pip cannot be asked for vLLM's sdist (it builds its metadata first and refuses the version it gets), so the package
`unearth` finds the file by its name.  The caller checks what came.
"""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recipe.sources.errors import DISK_FULL, READ_ONLY, SourcesError, Unreachable, writing
from recipe.sources.pins import Pin

Say = Callable[[str], None]


@dataclass(frozen=True)
class IndexSettings:
    """Where pip would look: index URLs, find-links locations, hosts trusted without TLS, a certificate file."""

    index_urls: tuple[str, ...]
    find_links: tuple[str, ...]
    trusted_hosts: tuple[str, ...]
    cert: str | None


@functools.cache
def index_settings() -> IndexSettings:
    """pip's own configuration: files and PIP_* variables; its default index when none is set."""
    options: dict[str, str] = {}
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False, timeout=60
    )
    # Later scopes win, as in pip: [global], then the command's section, then the environment.
    order = {"global": 0, "download": 1, "install": 1, ":env:": 2}
    lines = [line.partition("=") for line in listed.stdout.splitlines() if listed.returncode == 0]
    for key, _, value in sorted(lines, key=lambda line: order.get(line[0].partition(".")[0], -1)):
        scope, _, option = key.partition(".")
        if scope in order:
            options[option.lower()] = str(ast.literal_eval(value))
    if listed.returncode != 0:
        options = {
            key.removeprefix("PIP_").replace("_", "-").lower(): value
            for key, value in os.environ.items()
            if key.startswith("PIP_")
        }
    index = options.get("index-url", "") or _default_index()
    no_index = options.get("no-index", "").lower() in ("1", "true", "yes", "on")
    urls = () if no_index else tuple(index.split() + options.get("extra-index-url", "").split())
    return IndexSettings(
        urls, tuple(options.get("find-links", "").split()), tuple(options.get("trusted-host", "").split()),
        options.get("cert"),
    )  # fmt: skip


def _default_index() -> str:
    try:
        from pip._internal.models.index import PyPI
    except ImportError:
        return ""
    return str(PyPI.simple_url)


def download(pin: Pin, target: Path) -> None:
    """Write the pin's file to `target`, in three attempts; Unreachable when none succeeds."""
    last: Exception | None = None
    for attempt in range(3):
        try:
            return _download(pin, target)
        except SourcesError:
            raise
        except Exception as error:  # whatever the HTTP library raises: unreachable, broken off, refused
            if isinstance(error, OSError) and error.errno in (*DISK_FULL, *READ_ONLY):
                with writing(target.parent, "name another directory in RECIPE_CACHE_DIR"):
                    raise
            last = error
            time.sleep(attempt)
    reason = str(last).partition("\n")[0]
    raise Unreachable(
        f"cannot fetch {pin.file} from the package index ({type(last).__name__}: {reason}); connect to the network and "
        f"run sync again, or bring the file: python -m recipe sync --from {pin.name}=PATH"
    )


def _download(pin: Pin, target: Path) -> None:
    try:
        from unearth import PackageFinder
        from unearth.fetchers import PyPIClient
    except ImportError:
        raise SourcesError("sync needs the package unearth: pip install unearth") from None
    settings = index_settings()
    if not settings.index_urls and not settings.find_links:
        raise SourcesError("no package index is configured; set PIP_INDEX_URL or install pip into this environment")
    if settings.cert:
        os.environ.setdefault("SSL_CERT_FILE", settings.cert)
    with PyPIClient(trusted_hosts=settings.trusted_hosts, timeout=60.0, follow_redirects=True) as session:
        finder = PackageFinder(
            session,  # type: ignore[arg-type]  # unearth's own client; its protocol types differ in parameter names
            index_urls=settings.index_urls,
            find_links=settings.find_links,
            trusted_hosts=settings.trusted_hosts,
            ignore_compatibility=True,  # only Python files are used, so one wheel serves every platform
        )
        matches = finder.find_matches(f"{pin.name}=={pin.version}", allow_yanked=True, allow_prereleases=True)
        link = next((match.link for match in matches if match.link.filename == pin.file), None)
        if link is None:
            raise ConnectionError("none of the configured locations lists it, or none answered")
        with session.get_stream(link.normalized) as response, target.open("wb") as out:
            response.raise_for_status()
            for chunk in response.iter_bytes(1 << 16):
                out.write(chunk)
