# SPDX-License-Identifier: Apache-2.0
"""Tiny made-up upstreams, served from a local directory (pip's find-links), and a checkout that pins them."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

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


class Checkout:
    """A directory with `upstreams.toml`; `archives` is what the package index serves."""

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
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
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

    def content(self) -> dict[str, str]:
        """All files of `upstream/` but the manifest."""
        files = (file for file in sorted(self.upstream.rglob("*")) if file.is_file())
        return {str(f.relative_to(self.upstream)): f.read_text() for f in files if f.name != "MANIFEST.json"}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    index.index_settings.cache_clear()
    return Checkout(tmp_path)
