# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe sync` on tiny wheels and sdists: verified, all or nothing, idempotent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time


def test_brings_packages_and_metadata_and_nothing_else(checkout):
    done = checkout.sync()
    assert done.returncode == 0, done.stderr
    content = checkout.content()
    assert set(content) == {
        "alpha/__init__.py", "alpha/worker.py", "alpha/data.json", "alpha-1.0.dist-info/METADATA",
        "alpha-1.0.dist-info/entry_points.txt", "alpha-1.0.dist-info/licenses/LICENSE",
        "beta/__init__.py", "beta/core/__init__.py", "beta_core-2.0.dist-info/METADATA",
        "beta_core-2.0.dist-info/entry_points.txt", "beta_core-2.0.dist-info/licenses/LICENSE",
    }  # fmt: skip
    assert content["alpha/worker.py"] == checkout.worker.replace("import X\n", "import X\nfrom ours import prelude\n")
    code = (
        "from importlib.metadata import version, entry_points as e; import alpha, beta.core; "
        "print(version('alpha'), version('beta-core'), e(group='vllm.platform_plugins')['ascend'].value)"
    )
    out = subprocess.run(
        [shutil.which("python3") or "python3", "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(checkout.upstream)},
    )  # fmt: skip
    assert out.stdout.split() == ["1.0", "2.0", "alpha:register"]
    manifest = json.loads((checkout.upstream / "MANIFEST.json").read_text())
    assert set(manifest["files"]) == set(content) and manifest["profile"] == "sim"
    assert manifest["upstreams"]["beta-core"]["version"] == "2.0"


def test_is_idempotent_and_needs_no_network_then(checkout):
    assert "synced" in checkout.sync().stdout
    stamps = {file: file.stat().st_mtime_ns for file in checkout.upstream.rglob("*")}
    checkout.archives.rename(checkout.archives.with_name("gone"))
    start = time.process_time()
    repeated = checkout.sync()
    assert repeated.returncode == 0 and "up to date" in repeated.stdout
    assert time.process_time() - start < 2
    assert {file: file.stat().st_mtime_ns for file in checkout.upstream.rglob("*")} == stamps
    assert checkout.sync("--check").returncode == 0
    shutil.rmtree(checkout.upstream)
    assert "synced" in checkout.sync().stdout  # from the cache


def test_check_and_repair(checkout):
    assert "was not made by sync" in checkout.sync("--check").stdout
    checkout.sync()
    clean = checkout.content()
    (checkout.upstream / "alpha" / "__init__.py").write_text("V = 2\n")
    (checkout.upstream / "alpha" / "extra.py").write_text("")
    (checkout.upstream / "beta" / "core" / "__init__.py").unlink()
    (checkout.upstream / "alpha" / "__pycache__").mkdir()
    (checkout.upstream / "alpha" / "__pycache__" / "x.pyc").write_text("")
    checked = checkout.sync("--check")
    assert checked.returncode == 1
    assert checked.stdout.splitlines()[:3] == [
        "changed: alpha/__init__.py", "missing: beta/core/__init__.py", "not ours: alpha/extra.py"]  # fmt: skip
    assert json.loads(checkout.sync("--check", "--json").stdout)["differences"][0] == "changed: alpha/__init__.py"
    assert "synced" in checkout.sync().stdout
    assert checkout.content() == clean
    # A manifest that was changed along with a file does not fool --check: it works from the archives.
    (checkout.upstream / "alpha" / "__init__.py").write_text("V = 3\n")
    manifest = checkout.upstream / "MANIFEST.json"
    content = json.loads(manifest.read_text())
    content["files"]["alpha/__init__.py"] = hashlib.sha256(b"V = 3\n").hexdigest()
    manifest.write_text(json.dumps(content))
    assert "changed: alpha/__init__.py" in checkout.sync("--check").stdout


def test_mindspeed_of_the_user_stays(checkout):
    mine = checkout.upstream / "mindspeed" / "core.py"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert checkout.sync().returncode == 0
    assert mine.read_text() == "mine"
    assert checkout.sync("--check").returncode == 0 and "up to date" in checkout.sync().stdout
    (checkout.upstream / "alpha" / "__init__.py").write_text("changed")
    assert "synced" in checkout.sync().stdout and mine.read_text() == "mine"


def test_new_pin_replaces_the_old_tree(checkout):
    checkout.sync()
    checkout.wheel({"alpha/worker.py": checkout.worker, "alpha-1.0.dist-info/METADATA": "Name: alpha\nVersion: 1.0\n"})
    checkout.pin()
    shutil.rmtree(checkout.cache)
    assert "synced" in checkout.sync().stdout
    assert "alpha/data.json" not in checkout.content() and "beta/core/__init__.py" in checkout.content()


def test_wrong_hash_is_refused_before_anything_is_unpacked(checkout):
    checkout.pin(alpha="0" * 64)
    line = checkout.fails()
    assert "SHA-256" in line and "0" * 64 in line and "nothing was unpacked" in line
    assert not list(checkout.cache.rglob("*.whl"))


def test_tampered_cache_is_refused(checkout):
    checkout.sync()
    shutil.rmtree(checkout.upstream)
    file = checkout.cache / "sources" / "alpha-1.0-py3-none-any.whl"
    file.write_bytes(file.read_bytes() + b"x")
    assert "delete the file and run sync again" in checkout.fails()


def test_no_network(checkout, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    line = checkout.fails(PIP_FIND_LINKS=str(empty))
    assert "cannot fetch alpha-1.0-py3-none-any.whl" in line and "connect to the network" in line
    assert line.endswith("(also missing: beta-core)")
    # 127.0.0.1:9 answers nobody
    line = checkout.fails(PIP_NO_INDEX="0", PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_FIND_LINKS=str(empty))
    assert "cannot fetch" in line and "recipe sync --from alpha=PATH" in line
    done = checkout.sync(  # as the message says
        "--from", f"alpha={checkout.archives}", "--from", f"beta-core={checkout.archives}", PIP_FIND_LINKS=str(empty)
    )
    assert done.returncode == 0, done.stderr


def test_restore_without_source_patches(checkout):
    checkout.sync()
    ours = checkout.content()
    assert "synced" in checkout.sync("--restore").stdout
    assert checkout.content() == {**ours, "alpha/worker.py": checkout.worker}
    checked = checkout.sync("--check")
    assert checked.returncode == 1
    assert "pristine: the prelude line is missing from alpha/worker.py; run: python -m recipe sync" in checked.stdout
    assert "synced" in checkout.sync().stdout and checkout.content() == ours
