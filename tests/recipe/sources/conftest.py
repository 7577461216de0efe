# SPDX-License-Identifier: Apache-2.0
"""Tiny made-up upstreams, served from a local directory (pip's find-links) or in git, and a checkout that pins them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from recipe.__main__ import main
from recipe.sources import index

REPO = Path(__file__).resolve().parents[3]
WORKER = (
    "import os\nfrom omegaconf import X\n\ntry:\n    from mindspeed import repatch\nexcept ImportError:\n    pass\n"
)

WHEEL = {
    "alpha/__init__.py": "V = 1\n",
    "alpha/worker.py": WORKER,
    "alpha/data.json": "{}",
    "alpha/fast.cpython-311-x86_64-linux-gnu.so": "ELF",
    "tests/test_it.py": "",
    "alpha-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: alpha\nVersion: 1.0\n",
    "alpha-1.0.dist-info/entry_points.txt": "[vllm.platform_plugins]\nascend = alpha:register\n",
    "alpha-1.0.dist-info/RECORD": "",
    "alpha-1.0.dist-info/licenses/LICENSE": "free",
}
SDIST = {
    "PKG-INFO": "Metadata-Version: 2.1\nName: beta-core\nVersion: 2.0\n",
    "LICENSE": "free",
    "setup.py": "raise SystemExit('never run')",
    "beta/__init__.py": "",
    "beta/core/__init__.py": "W = 2\n",
    "beta/core/fast.so": "ELF",
    "beta_core.egg-info/entry_points.txt": "[console_scripts]\nbeta = beta:main\n",
    "beta_core.egg-info/SOURCES.txt": "",
}


GIT = {
    "gamma/__init__.py": "G = 1\n",
    "gamma/csrc/kernel.cpp": "int main;\n",
    "gamma/fast.so": "ELF",
    "LICENSE": "free",
    "setup.py": "raise SystemExit('never run')",
    "tests/test_gamma.py": "",
}


class Checkout:
    """A directory with `upstreams.toml`; `archives` is what the package index serves."""

    worker = WORKER

    def __init__(self, root: Path) -> None:
        self.root = root / "checkout"
        self.archives = root / "archives"
        self.cache = root / "cache"
        self.root.mkdir()
        self.archives.mkdir()
        self.wheel(WHEEL)
        self.sdist([(f"beta_core-2.0/{name}", text) for name, text in SDIST.items()])
        self.pin()

    @property
    def upstream(self) -> Path:
        return self.root / "upstream"

    def wheel(self, files: dict[str, str]) -> Path:
        file = self.archives / "alpha-1.0-py3-none-any.whl"
        with zipfile.ZipFile(file, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return file

    def sdist(self, members: list[tuple[str, str]], *special: tarfile.TarInfo) -> Path:
        file = self.archives / "beta_core-2.0.tar.gz"
        with tarfile.open(file, "w:gz") as archive:
            for name, text in members:
                info = tarfile.TarInfo(name)
                info.size = len(text.encode())
                archive.addfile(info, io.BytesIO(text.encode()))
            for info in special:
                archive.addfile(info)
        return file

    def pin(self, text: str = "", **sha256: str) -> None:
        """Write upstreams.toml for the archives as they are now; `text` is appended."""
        entries = ""
        for name, version, package, file in (
            ("alpha", "1.0", "alpha", "alpha-1.0-py3-none-any.whl"),
            ("beta-core", "2.0", "beta", "beta_core-2.0.tar.gz"),
        ):
            digest = sha256.get(package) or hashlib.sha256((self.archives / file).read_bytes()).hexdigest()
            entries += f'[sim.{name}]\nversion = "{version}"\nfile = "{file}"\nsha256 = "{digest}"\n'
            entries += f'packages = ["{package}"]\n\n'
        prelude = (
            '[prelude]\nfile = "alpha/worker.py"\nafter = "from omegaconf import X"\n'
            'before = "    from mindspeed import repatch"\nline = "from ours import prelude"\n\n'
        )
        (self.root / "upstreams.toml").write_text(prelude + entries + text, encoding="utf-8")

    def environment(self, **more: str) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "RECIPE_"))}
        return {
            **clean,
            "PYTHONPATH": str(REPO),
            "RECIPE_CACHE_DIR": str(self.cache),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.archives),
            **more,
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "recipe", "sync", "--root", str(self.root), *arguments]

    def sync(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command in this process (a fresh one for each of many small cases would cost more than the cases)."""
        with (
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(StringIO()) as out,
            redirect_stderr(StringIO()) as err,
        ):
            for key in os.environ.keys() - self.environment().keys():
                patch.delenv(key)
            for key, value in self.environment(**environment).items():
                patch.setenv(key, value)
            if environment:
                index.index_settings.cache_clear()
            code = main(self.command(*arguments)[3:])
        return subprocess.CompletedProcess(self.command(*arguments), code, out.getvalue(), err.getvalue())

    def killed(self, picked: Callable[[str, Any], object], step: int, *arguments: str) -> bool:
        """Sync in a child that kills itself at the picked audit event number `step` (from 0); False: it came through.

        picked: takes an event's name and its arguments.
        """
        child = os.fork()
        if child == 0:
            left = step

            def watch(event: str, details: Any) -> None:
                nonlocal left
                if picked(event, details):
                    left -= 1
                    if left < 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            try:
                sys.addaudithook(watch)
                os._exit(self.sync(*arguments).returncode)
            finally:
                os._exit(99)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, -signal.SIGKILL)
        return code != 0

    def fails(self, *arguments: str, code: int = 1, **environment: str) -> str:
        """Run a sync that must fail with exactly one line and leave `upstream/` as it was; returns the line."""
        before = self.content()
        done = self.sync(*arguments, **environment)
        assert done.returncode == code, done.stdout + done.stderr
        assert self.content() == before
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        return done.stderr.strip()

    def git(self, repository: Path, *arguments: str) -> str:
        """git's output in `repository`, as a stranger to the configuration of this machine."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=repository, env=environment,
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    def repository(self, name: str = "gamma", files: dict[str, str] = GIT) -> tuple[Path, str]:
        """A git repository beside the checkout with one commit of `files`: its path and the commit."""
        path = self.root.parent / name
        path.mkdir()
        self.git(path, "init", "-q")
        return path, self.commit(path, files)

    def commit(self, path: Path, files: dict[str, str]) -> str:
        for file, text in files.items():
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            (path / file).write_text(text)
        self.git(path, "add", "-A")
        self.git(path, "commit", "-q", "-m", "one")
        return self.git(path, "rev-parse", "HEAD")

    def pin_git(self, commit: str, url: str = "/nowhere/gamma.git", more: str = "", packages: str = '"gamma"') -> None:
        """Add a profile a3 with the one upstream gamma, from git, to upstreams.toml."""
        self.pin(
            f'[a3.gamma]\nversion = "3.0"\ngit = "{url}"\ncommit = "{commit}"\npackages = [{packages}]\n'
            '[a3.gamma.entry-points]\n"vllm.platform_plugins" = { ascend = "gamma:register" }\n' + more
        )

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.upstream / "MANIFEST.json").read_text())

    def content(self) -> dict[str, str]:
        """All files of `upstream/` but the manifest."""
        files = (file for file in sorted(self.upstream.rglob("*")) if file.is_file())
        return {str(f.relative_to(self.upstream)): f.read_text() for f in files if f.name != "MANIFEST.json"}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    index.index_settings.cache_clear()
    return Checkout(tmp_path)
