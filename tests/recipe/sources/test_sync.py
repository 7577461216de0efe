# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe sync` on tiny wheels and sdists: verified, all or nothing, idempotent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.sources import pins, tree
from recipe.sources.errors import SourcesError

REPO = Path(__file__).resolve().parents[3]
WORKER = (
    "import os\nfrom omegaconf import X\n\ntry:\n    from mindspeed import repatch\nexcept ImportError:\n    pass\n"
)
PRELUDE = pins.Prelude(
    "alpha/worker.py", "from omegaconf import X", "    from mindspeed import repatch", "from ours import prelude"
)


def fails(checkout, *arguments, **environment) -> str:
    """Sync must fail with exactly one line, and leave no tree behind that was not there."""
    before = checkout.content() if checkout.upstream.exists() else None
    done = checkout.sync(*arguments, **environment)
    assert done.returncode == 1, done.stdout
    assert (checkout.content() if checkout.upstream.exists() else None) == before
    assert done.stderr.count("\n") == 1, done.stderr
    line = done.stderr.strip()
    assert line.startswith("error: ")
    return line


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
    assert content["alpha/worker.py"] == WORKER.replace("import X\n", "import X\nfrom ours import prelude\n")
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
    start = time.perf_counter()
    again = checkout.sync()
    assert again.returncode == 0 and "up to date" in again.stdout
    assert time.perf_counter() - start < 2
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
    found = checkout.sync("--check")
    assert found.returncode == 1
    assert found.stdout.splitlines()[:3] == [
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
    checkout.wheel({"alpha/worker.py": WORKER, "alpha-1.0.dist-info/METADATA": "Name: alpha\nVersion: 1.0\n"})
    checkout.pin()
    shutil.rmtree(checkout.cache)
    assert "synced" in checkout.sync().stdout
    assert "alpha/data.json" not in checkout.content() and "beta/core/__init__.py" in checkout.content()


def test_wrong_hash_is_refused_before_anything_is_unpacked(checkout):
    checkout.pin(alpha="0" * 64)
    line = fails(checkout)
    assert "SHA-256" in line and "0" * 64 in line and "nothing was unpacked" in line
    assert not list(checkout.cache.rglob("*.whl"))


def test_tampered_cache_is_refused(checkout):
    checkout.sync()
    shutil.rmtree(checkout.upstream)
    file = checkout.cache / "sources" / "alpha-1.0-py3-none-any.whl"
    file.write_bytes(file.read_bytes() + b"x")
    assert "delete the file and run sync again" in fails(checkout)


def test_no_network(checkout, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    line = fails(checkout, PIP_FIND_LINKS=str(empty))
    assert "cannot fetch alpha-1.0-py3-none-any.whl" in line and "connect to the network" in line
    # 127.0.0.1:9 answers nobody
    line = fails(checkout, PIP_NO_INDEX="0", PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_FIND_LINKS=str(empty))
    assert "cannot fetch" in line and str(checkout.cache) in line
    checkout.cache.joinpath("sources").mkdir(parents=True, exist_ok=True)
    for file in checkout.archives.iterdir():
        shutil.copy(file, checkout.cache / "sources")
    assert checkout.sync(PIP_FIND_LINKS=str(empty)).returncode == 0  # as the message says


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil.py", "alpha/../../evil.py", "alpha\\..\\evil.py"])
def test_wheel_that_would_leave_the_directory(checkout, name):
    checkout.wheel(
        {"alpha/worker.py": WORKER, "alpha-1.0.dist-info/METADATA": "Name: alpha\nVersion: 1.0\n", name: "x"}
    )
    checkout.pin()
    assert "would leave the directory" in fails(checkout)
    assert not list(checkout.root.parent.rglob("evil.py"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_sdist_with_a_link_among_the_wanted_files(checkout, kind):
    info = tarfile.TarInfo("beta_core-2.0/beta/evil.py")
    info.type, info.linkname = kind, "/etc/passwd"
    outside = tarfile.TarInfo("beta_core-2.0/docs/link")
    outside.type, outside.linkname = tarfile.SYMTYPE, "../README"
    members = [("beta_core-2.0/PKG-INFO", "Name: beta-core\nVersion: 2.0\n"), ("beta_core-2.0/beta/__init__.py", "")]
    checkout.sdist(members, outside)
    checkout.pin()
    assert checkout.sync().returncode == 0  # links elsewhere are not our business
    checkout.sdist(members, info)
    checkout.pin()
    shutil.rmtree(checkout.cache)
    assert "is a link or a special file" in fails(checkout)


def test_sdist_that_would_leave_the_directory(checkout):
    checkout.sdist(
        [("beta_core-2.0/PKG-INFO", "Name: beta-core\nVersion: 2.0\n"), ("beta_core-2.0/../../evil.py", "x")]
    )
    checkout.pin()
    assert "would leave the directory" in fails(checkout)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("b/PKG-INFO", "Name: gamma\nVersion: 2.0\n"), ("b/beta/__init__.py", "")], "metadata says gamma 2.0"),
        ([("b/PKG-INFO", "Name: beta-core\nVersion: 2.1\n"), ("b/beta/__init__.py", "")], "beta-core 2.1, expected"),
        ([("b/PKG-INFO", "Name: beta-core\nVersion: 2.0\n")], "no package directory beta"),
        ([("b/PKG-INFO", "Name: beta-core\nVersion: 2.0\n"), ("b/beta/__init__.py", ""), ("b/alpha/x.py", "")], None),
    ],
)
def test_archive_that_is_not_what_the_pin_says(checkout, members, says):
    checkout.sdist(members)
    checkout.pin()
    if says is None:
        assert checkout.sync().returncode == 0 and "alpha/x.py" not in checkout.content()
    else:
        assert says in fails(checkout)


def test_archive_that_is_none(checkout):
    for name in ("alpha-1.0-py3-none-any.whl", "beta_core-2.0.tar.gz"):
        good = (checkout.archives / name).read_bytes()
        (checkout.archives / name).write_bytes(b"not an archive" * 100)
        checkout.pin()
        assert "not a readable" in fails(checkout)
        shutil.rmtree(checkout.cache)
        (checkout.archives / name).write_bytes(good)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[sim.x]\nversion = '1'\nfile = 'x.whl'\nsha256 = 'abc'\npackages = ['x']\n", "64 hex digits"),
        ("[sim.x]\nversion = '1'\nfile = '../x.whl'\nsha256 = '" + "0" * 64 + "'\npackages = ['x']\n", "needs file="),
        ("[sim.x]\nversion = '1'\ngit = 'g'\ncommit = 'abc'\npackages = ['x']\n", "not a full commit"),
        ("[sim.x]\nversion = '1'\nhash = 'abc'\n", "unexpected keyword argument 'hash'"),
        ("[sim\n", "not valid TOML"),
    ],
)
def test_malformed_pins(checkout, text, says):
    checkout.pin(text)
    assert says in fails(checkout)


def test_unknown_profile(checkout):
    assert "has no profile 'b4'; it has sim" in fails(checkout, "--profile", "b4")


def test_git_profile(checkout, tmp_path):
    source = tmp_path / "source"
    (source / "gamma" / "csrc").mkdir(parents=True)
    (source / "gamma" / "__init__.py").write_text("G = 1\n")
    (source / "gamma" / "worker.py").write_text(WORKER)
    (source / "setup.py").write_text("")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(source)]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    toml = (checkout.root / "upstreams.toml").read_text().split("[sim.alpha]")[0].replace("alpha/", "gamma/")
    (checkout.root / "upstreams.toml").write_text(
        toml + f'[a3.gamma]\nversion = "3.0"\ngit = "{source.as_uri()}"\ncommit = "{commit}"\npackages = ["gamma"]\n'
        '[a3.gamma.entry-points]\n"vllm.platform_plugins" = { ascend = "gamma:register" }\n'
        '[a3.gamma.generate]\n"gamma/_version.py" = "v = 3"\n'
    )
    done = checkout.sync("--profile", "a3")
    assert done.returncode == 0, done.stderr
    content = checkout.content()
    assert content["gamma/_version.py"] == "v = 3" and "from ours import prelude" in content["gamma/worker.py"]
    assert "Version: 3.0" in content["gamma-3.0.dist-info/METADATA"]
    assert "ascend = gamma:register" in content["gamma-3.0.dist-info/entry_points.txt"]
    text = (checkout.root / "upstreams.toml").read_text().replace(commit, "0" * 40)
    (checkout.root / "upstreams.toml").write_text(text)
    assert f"cannot fetch commit {'0' * 40}" in fails(checkout, "--profile", "a3")


def test_killed_at_any_moment_leaves_no_half_tree(checkout):
    """SIGKILL after every single file operation of a sync, first and second time; then a plain sync puts it right."""
    checkout.sync()
    wanted = checkout.content()
    mine = checkout.upstream / "mindspeed" / "mine.py"
    mine.parent.mkdir()
    mine.write_text("mine")
    # Run sync in a child that kills itself before its n-th change of the file system below the checkout.
    code = (
        "import os, signal, sys\n"
        "left = [int(sys.argv.pop(1))]\n"
        "def watch(event, args):\n"
        "    change = event in ('os.rename', 'os.mkdir', 'os.remove', 'os.rmdir', 'shutil.rmtree') or (\n"
        "        event == 'open' and isinstance(args[1], str) and args[1][0] in 'wax')\n"
        "    if change and 'checkout' in str(args[0]):\n"
        "        left[0] -= 1\n"
        "        if left[0] < 0:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "from recipe.__main__ import main\n"
        "import recipe.sources.cli\n"
        "sys.addaudithook(watch)\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    script = checkout.root.parent / "kill.py"
    script.write_text(code)
    step = killed = 0
    while True:
        (checkout.upstream / "alpha" / "__init__.py").write_text("changed")  # so that there is something to do
        wanted_or_changed = [wanted, {**wanted, "alpha/__init__.py": "changed"}]
        arguments = checkout.command()[3:]
        done = subprocess.run(
            [checkout.command()[0], str(script), str(step), *arguments],
            env=checkout.environment(), cwd=checkout.root, capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        if checkout.upstream.exists():
            found = checkout.content()
            found.pop("mindspeed/mine.py", None)
            assert found in wanted_or_changed, f"half a tree after operation {step}"
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        killed += 1
        repaired = checkout.sync()
        assert repaired.returncode == 0, repaired.stderr
        assert checkout.content() == {**wanted, "mindspeed/mine.py": "mine"}, f"after operation {step}"
        assert sorted(p.name for p in (checkout.root / ".cache").iterdir()) == ["sync.lock"]
        step += 1 if step < 4 else 3
    assert killed > 8


def test_two_at_once(checkout):
    children = [
        subprocess.Popen(
            checkout.command(), env=checkout.environment(), cwd=checkout.root, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    outputs = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert sum("synced" in out for out in outputs) == 1 and sum("up to date" in out for out in outputs) == 2


def test_prelude_insertion_is_idempotent():
    once = tree.insert_prelude(WORKER, PRELUDE)
    assert once.split("\n")[1:3] == ["from omegaconf import X", "from ours import prelude"]
    assert tree.insert_prelude(once, PRELUDE) == once and once.replace("from ours import prelude\n", "") == WORKER


@pytest.mark.parametrize(
    "text",
    [
        WORKER.replace("from omegaconf import X", "from omegaconf import X, Y"),
        WORKER.replace("    from mindspeed", "    from mindspeed_rl"),
        WORKER + "from omegaconf import X\n",
        "\n".join(reversed(WORKER.split("\n"))),
    ],
)
def test_prelude_without_its_anchor_is_an_error(checkout, text):
    with pytest.raises(SourcesError, match=r"alpha/worker\.py"):
        tree.insert_prelude(text, PRELUDE)
    checkout.wheel({"alpha/worker.py": text, "alpha-1.0.dist-info/METADATA": "Name: alpha\nVersion: 1.0\n"})
    checkout.pin()
    assert "alpha/worker.py" in fails(checkout)


@given(st.lists(st.sampled_from(["x = 1", "", "# y", "import z"]), max_size=8))
def test_prelude_changes_nothing_else(noise):
    text = "\n".join([*noise, WORKER, *noise])
    lines = tree.insert_prelude(text, PRELUDE).split("\n")
    lines.remove(PRELUDE.line)
    assert "\n".join(lines) == text


# This repository's own pins.


def test_both_profiles_of_this_repository_are_well_formed():
    sim, a3 = (pins.read_profile(REPO / "upstreams.toml", name) for name in ("sim", "a3"))
    assert {pin.name: pin.version for pin in sim.pins} == {
        "verl": "0.6.1", "vllm": "0.9.1", "vllm-ascend": "0.9.1", "megatron-core": "0.12.1"}  # fmt: skip
    assert all(pin.sha256 and not pin.git for pin in sim.pins) and all(pin.git and pin.commit for pin in a3.pins)
    assert {pin.name for pin in a3.pins} == {pin.name for pin in sim.pins} | {"mindspeed"}


def test_upstream_of_this_repository_has_the_prelude_line_where_it_belongs():
    upstream = Path(os.environ.get("RECIPE_UPSTREAM", REPO / "upstream"))
    prelude = pins.read_profile(REPO / "upstreams.toml", "sim").prelude
    lines = (upstream / prelude.file).read_text().split("\n")
    assert lines[lines.index(prelude.after) + 1] == prelude.line and lines.count(prelude.line) == 1
