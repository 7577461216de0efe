# SPDX-License-Identifier: Apache-2.0
"""Fetch exact files from the package index that pip is configured for, and exact commits from git, into a cache.

pip cannot be asked for vLLM's sdist (it builds its metadata first and refuses the version it gets), so the package
`unearth` finds the file by its name.  Nothing is handed out before its SHA-256 agrees.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recipe.sources.errors import SourcesError
from recipe.sources.pins import Pin

Say = Callable[[str], None]


def cache_dir() -> Path:
    """Where downloads are kept: $RECIPE_CACHE_DIR, else deepseek-v3-grpo-npu/ in the user's cache directory."""
    own = os.environ.get("RECIPE_CACHE_DIR")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(own) if own else base / "deepseek-v3-grpo-npu"


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
    found: dict[str, str] = {}
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False, timeout=60
    )
    # Later scopes win, as in pip: [global], then the command's section, then the environment.
    order = {"global": 0, "download": 1, "install": 1, ":env:": 2}
    lines = [line.partition("=") for line in listed.stdout.splitlines() if listed.returncode == 0]
    for key, _, value in sorted(lines, key=lambda line: order.get(line[0].partition(".")[0], -1)):
        scope, _, option = key.partition(".")
        if scope in order:
            found[option.lower()] = str(ast.literal_eval(value))
    if listed.returncode != 0:
        found = {
            key.removeprefix("PIP_").replace("_", "-").lower(): value
            for key, value in os.environ.items()
            if key.startswith("PIP_")
        }
    index = found.get("index-url", "") or _default_index()
    no_index = found.get("no-index", "").lower() in ("1", "true", "yes", "on")
    urls = () if no_index else tuple(index.split() + found.get("extra-index-url", "").split())
    return IndexSettings(
        urls, tuple(found.get("find-links", "").split()), tuple(found.get("trusted-host", "").split()),
        found.get("cert"),
    )  # fmt: skip


def _default_index() -> str:
    try:
        from pip._internal.models.index import PyPI
    except ImportError:
        return ""
    return str(PyPI.simple_url)


def sha256_of(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def cached(pin: Pin) -> Path | None:
    """The pinned file in the cache when it is there and whole; one with another SHA-256 is an error."""
    file = cache_dir() / "sources" / pin.file
    if not file.is_file():
        return None
    found = sha256_of(file)
    if found != pin.sha256:
        raise SourcesError(f"{file}: SHA-256 is {found}, expected {pin.sha256}; delete the file and run sync again")
    return file


def fetch_file(pin: Pin, say: Say) -> Path:
    """The verified file of a pin, from the cache or the index."""
    file = cached(pin)
    if file is not None:
        return file
    target = cache_dir() / "sources" / pin.file
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{pin.file}.{os.getpid()}")
    say(f"{pin.name} {pin.version}: fetching {pin.file}")
    try:
        last: Exception | None = None
        for attempt in range(3):
            try:
                _download(pin, partial)
                break
            except SourcesError:
                raise
            except Exception as error:  # whatever the HTTP library raises: unreachable, broken off, refused
                last = error
                time.sleep(attempt)
        else:
            raise SourcesError(
                f"cannot fetch {pin.file} from the package index ({type(last).__name__}: {last}); connect to the "
                f"network and run sync again, or put the file into {target.parent}"
            )
        found = sha256_of(partial)
        if found != pin.sha256:
            raise SourcesError(
                f"{pin.file} from the package index has SHA-256 {found}, upstreams.toml pins {pin.sha256}; nothing "
                "was unpacked: the index serves another file"
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


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


def fetch_commit(pin: Pin, say: Say) -> bytes:
    """A tar of the pin's packages and licence at its commit, from a bare repository kept in the cache."""
    repository = cache_dir() / "git" / pin.name
    if _git(repository, "cat-file", "-e", f"{pin.commit}^{{commit}}") is None:
        say(f"{pin.name} {pin.version}: fetching commit {pin.commit[:12]}")
        repository.mkdir(parents=True, exist_ok=True)
        if _git(repository, "init", "--quiet", "--bare", ".") is None:
            raise SourcesError("sync --profile a3 needs git, which is not installed")
        if _git(repository, "fetch", "--quiet", "--depth", "1", pin.git, pin.commit) is None:
            raise SourcesError(
                f"cannot fetch commit {pin.commit} of {pin.git}; connect to the network and run sync again"
            )
    tar = _git(repository, "archive", "--format=tar", "--prefix=source/", pin.commit, *pin.packages)
    if tar is None:
        raise SourcesError(f"commit {pin.commit} of {pin.git} has no {' or '.join(pin.packages)}")
    return tar


def _git(repository: Path, *arguments: str) -> bytes | None:
    """git's output in `repository`, None when it fails."""
    if not repository.is_dir():
        return None
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_DIR": str(repository)}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=repository, env=environment, capture_output=True, check=False, timeout=1800
        )
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
