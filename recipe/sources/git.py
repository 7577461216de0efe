# SPDX-License-Identifier: Apache-2.0
"""Bring single commits, from their URL or from a local repository, and read files out of them, each object verified.

Objects are read one by one and each must have the SHA-1 by which the commit names it, so what comes out is what was
pinned: no work tree, attribute, replacement or filter of the repository or the user has a say.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from recipe.sources.archive import COMPILED, MAX_BYTES, Files, is_licence, metadata_of
from recipe.sources.errors import SourcesError, Unreachable
from recipe.sources.pins import Pin

# Variables that would make git use another repository than the one we name.
_TIES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_GRAFT_FILE", "GIT_INDEX_FILE", "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_WORK_TREE",
)  # fmt: skip
_HOURS = 3600


def _environment(git_dir: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in _TIES}
    own = {"GIT_DIR": str(git_dir), "GIT_TERMINAL_PROMPT": "0", "GIT_NO_REPLACE_OBJECTS": "1", "LC_ALL": "C"}
    return {**kept, **own}


def _run(git_dir: Path, *arguments: str, standard_input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["git", *arguments], cwd=git_dir.parent, env=_environment(git_dir), input=standard_input,
            capture_output=True, check=False, timeout=_HOURS,
        )  # fmt: skip
    except FileNotFoundError:
        raise NoGit() from None
    except subprocess.TimeoutExpired:
        raise SourcesError(f"git {arguments[0]} took longer than {_HOURS} s; run sync again") from None


class NoGit(SourcesError):
    def __init__(self) -> None:
        super().__init__("git is not installed, and a pinned commit or a source patch needs it: install git")


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[0] if lines else f"exit code {done.returncode}"


def git_dir_of(path: Path) -> Path | None:
    """The git directory of a checkout or bare repository at `path`, None when there is none."""
    if (path / ".git").exists():
        return path / ".git"
    return path if (path / "HEAD").is_file() and (path / "objects").is_dir() else None


def fetch(pin: Pin, into: Path) -> None:
    """Make the bare repository `into` with the pin's commit, without its history, from the pin's URL."""
    _init(into)
    done = _run(into, "fetch", "--quiet", "--no-tags", "--depth", "1", pin.git, pin.commit)
    if done.returncode != 0:
        raise Unreachable(
            f"cannot fetch commit {pin.commit} of {pin.git} ({_said(done)}); connect to the network and run sync "
            f"again, or bring a clone: python -m recipe sync --from {pin.name}=PATH"
        )


def copy(pin: Pin, source: Path, into: Path) -> None:
    """Make the bare repository `into` with the pin's commit, without its history, from the local one at `source`."""
    git_dir = git_dir_of(source.resolve())
    if git_dir is None:
        reason = "a file" if source.is_file() else "no git repository" if source.is_dir() else "nothing"
        raise SourcesError(
            f"--from {pin.name}={source}: found {reason}, expected a checkout or bare repository of {pin.git}; "
            f"make one with: git clone {pin.git} PATH"
        )
    listed = _run(git_dir, "rev-list", "--objects", "--no-walk", pin.commit)
    if listed.returncode != 0:
        head = _run(git_dir, "rev-parse", "--verify", "--quiet", "HEAD").stdout.decode().strip()
        reason = f"its HEAD is {head[:12]}" if head else _said(listed)
        raise SourcesError(
            f"--from {pin.name}={source}: commit {pin.commit} is not in that repository ({reason}); "
            f"type: git -C {shlex.quote(str(source))} fetch {pin.git} {pin.commit}"
        )
    names = b"".join(line.partition(b" ")[0] + b"\n" for line in listed.stdout.splitlines())
    packed = _run(git_dir, "pack-objects", "--quiet", "--stdout", standard_input=names)
    if packed.returncode != 0:
        raise SourcesError(
            f"--from {pin.name}={source}: that repository cannot give commit {pin.commit[:12]} ({_said(packed)}); "
            f"look at it with: git -C {shlex.quote(str(source))} fsck"
        )
    _init(into)
    stored = _run(into, "index-pack", "--stdin", standard_input=packed.stdout)
    if stored.returncode != 0:
        raise SourcesError(f"cannot keep commit {pin.commit[:12]} in {into.parent}: {_said(stored)}")


def _init(into: Path) -> None:
    into.mkdir()
    done = _run(into, "init", "--quiet", "--bare")
    if done.returncode != 0:
        raise SourcesError(f"cannot make a repository in {into.parent}: {_said(done)}")


def read(pin: Pin, repository: Path) -> Files:
    """The pin's packages and licence texts at its commit, with the metadata that a build would have written."""
    files: Files = {}
    total = 0
    with Objects(repository) as objects:
        for name, mode, object_id in objects.entries(objects.tree_of(pin.commit)):
            if name in pin.packages and mode == "40000":
                for path, content in objects.files(object_id, name):
                    if not path.endswith(COMPILED):
                        total += len(content)
                        if total > MAX_BYTES:
                            raise SourcesError(f"{pin.name} has more than {MAX_BYTES >> 20} MiB; refused")
                        files[path] = content
            elif mode.startswith("100") and is_licence((name,)):
                files[f"{pin.dist_info}/licenses/{name}"] = objects.read(object_id, "blob")
    for path, text in pin.generate.items():
        files.setdefault(path, text.lstrip("\n").encode())
    return files | metadata_of(pin)


def read_file(pin: Pin, repository: Path, path: str) -> bytes | None:
    """One file of the pin's commit, None when it has no such file."""
    with Objects(repository) as objects:
        mode, object_id = "40000", objects.tree_of(pin.commit)
        for part in path.split("/"):
            entries = (
                {name: (mode, entry_id) for name, mode, entry_id in objects.entries(object_id)}
                if mode == "40000"
                else {}
            )
            if part not in entries:
                return None
            mode, object_id = entries[part]
        return objects.read(object_id, "blob") if mode.startswith("100") else None


class Objects:
    """The objects of a repository by their SHA-1, through one `git cat-file` process."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository

    def __enter__(self) -> Objects:
        try:
            self._process = subprocess.Popen(
                ["git", "cat-file", "--batch"], cwd=self._repository, env=_environment(self._repository),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except FileNotFoundError:
            raise NoGit() from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def read(self, object_id: str, kind: str) -> bytes:
        """The content of an object of that kind ("commit", "tree", "blob"); SourcesError unless it has that SHA-1."""
        send, receive = self._process.stdin, self._process.stdout
        assert send is not None and receive is not None
        content = b""
        try:
            send.write(f"{object_id}\n".encode())
            send.flush()
            header = receive.readline().decode().split()
            if len(header) == 3:
                content = receive.read(int(header[2]))
                receive.read(1)
        except BrokenPipeError:
            header = []
        digest = hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
        if len(header) != 3 or digest != object_id:
            raise SourcesError(
                f"{self._repository}: object {object_id} is missing or damaged; delete the directory and run sync again"
            )
        return content

    def tree_of(self, commit: str) -> str:
        return self.read(commit, "commit").partition(b"\n")[0].removeprefix(b"tree ").decode()

    def entries(self, tree: str) -> Iterator[tuple[str, str, str]]:
        """(name, mode, object id) of everything directly in a tree."""
        content = self.read(tree, "tree")
        while content:
            head, _, rest = content.partition(b"\0")
            mode, _, name = head.decode("utf-8").partition(" ")
            if name in ("", ".", "..") or "/" in name or "\\" in name:
                raise SourcesError(f"{self._repository}: entry {name!r} would leave the directory; refused")
            yield name, mode, rest[:20].hex()
            content = rest[20:]

    def files(self, tree: str, below: str) -> Iterator[tuple[str, bytes]]:
        """(path, content) of all files of a tree; a link or a submodule is an error."""
        for name, mode, object_id in self.entries(tree):
            path = f"{below}/{name}"
            if mode == "40000":
                yield from self.files(object_id, path)
            elif mode.startswith("100"):
                yield path, self.read(object_id, "blob")
            else:
                raise SourcesError(f"{self._repository}: {path} is a link or a submodule; refused")
