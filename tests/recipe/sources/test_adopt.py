# SPDX-License-Identifier: Apache-2.0
"""`sync --adopt`: trees that people copied or linked in by hand run as they are, and nothing in them changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.__main__ import main
from recipe.runfile.paths import upstream_dir
from recipe.sources.errors import SourcesError
from recipe.sources.tree import changes
from tests.recipe.sources.test_source_patches import CORE, OURS, bring, diff, fingerprint, write

CALLED = "def double(x):\n    return 2 * x\n"


def mirror(checkout, text: str = CALLED) -> None:
    """A declared patch on `alpha.worker:double`, as if for the text."""
    worker = checkout.worker + text
    checkout.wheel(
        {
            "alpha/__init__.py": "V = 1\n",
            "alpha/worker.py": worker,
            "alpha/data.json": "{}",
            "alpha-1.0.dist-info/METADATA": "Name: alpha\nVersion: 1.0\n",
            "alpha-1.0.dist-info/entry_points.txt": "[vllm.platform_plugins]\nascend = alpha:register\n",
        }
    )
    checkout.pin()
    file = checkout.root / "alpha_patches" / "worker.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        "from recipe.overlay import patch\n\n\n"
        f'@patch("alpha.worker:double", why="w", upstream="alpha==1.0", fingerprint="{fingerprint(worker, "double")}", '
        'remove_when="never")\ndef double(original, x):  # NPU-ADAPTATION: twice\n    return original(x)\n'
    )


@pytest.fixture
def ready(checkout):
    """A checkout with a patch on alpha, a source patch on beta, and both pinned archives in the cache alone."""
    bring(checkout)
    mirror(checkout)
    write(checkout, diff(CORE, OURS))
    keep(checkout)
    return checkout


def keep(checkout) -> None:
    """Put the archives into the cache; nothing is fetched from here on."""
    shutil.copytree(checkout.archives, checkout.cache / "sources", dirs_exist_ok=True)
    shutil.rmtree(checkout.archives)


def trees(place: Path, checkout, changed: dict[str, str] | None = None) -> Path:
    """`alpha` and `beta` in a directory as `cp -r` of the pinned checkouts leaves them, but for what is changed."""
    files = {
        "alpha/__init__.py": "V = 1\n",
        "alpha/worker.py": checkout.worker + CALLED,
        "alpha/data.json": "{}",
        "beta/__init__.py": "",
        "beta/core/__init__.py": CORE,
    } | (changed or {})
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


def state(directory: Path) -> dict[str, tuple[str, int]]:
    """Content and time of every file below a directory."""
    return {
        str(file): (file.read_text(errors="replace"), file.stat().st_mtime_ns)
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


def imported(checkout, code: str) -> str:
    """What a process prints that has `upstream/` on its path, as the processes of a run have."""
    done = subprocess.run(
        [sys.executable, "-c", code], text=True,
        env={**os.environ, "PYTHONPATH": str(checkout.upstream), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, check=True, cwd=checkout.root.parent,
    )  # fmt: skip
    return done.stdout.strip()


def in_the_root(ready):
    trees(ready.root, ready)
    return [str(ready.root)]


def in_an_image(ready):
    place = trees(ready.root.parent / "image", ready)
    (place / "alpha-src").mkdir()
    (place / "alpha").rename(place / "alpha-src" / "alpha")  # a checkout, and beside it a package
    (place / "alpha-src" / "setup.py").write_text("")
    (place / "alpha-src" / "alpha" / "fast.cpython-311.so").write_bytes(b"ELF")
    return [str(place / "alpha-src"), str(place / "beta")]


def by_links(ready):
    place = trees(ready.root.parent / "src", ready)
    for name in ("alpha", "beta"):
        (ready.root / name).symlink_to(place / name)
    return [str(ready.root)]


def renamed(ready):
    place = trees(ready.root.parent / "src", ready)
    (place / "alpha").rename(place / "my-alpha-0.9")
    (place / "beta").rename(place / "old")
    return [str(place / "my-alpha-0.9"), str(place / "old")]


@pytest.mark.parametrize("form", [in_the_root, in_an_image, by_links, renamed])
def test_trees_are_adopted_in_whatever_form_they_are(ready, form):
    directories = form(ready)
    before = state(ready.root.parent / "src") | state(ready.root / "alpha") | state(ready.root.parent / "image")
    done = ready.sync("--adopt", *directories)
    assert done.returncode == 0, done.stderr
    assert "files, as pinned; 1 patch fits" in done.stdout
    assert "alpha, beta adopted, as pinned, our prelude line and 1 source patch" in done.stdout
    code = (
        "import alpha, beta.core, pathlib, importlib.metadata as m; print(alpha.V, beta.core.attend(2, 3),"
        " m.version('alpha'), m.entry_points(group='vllm.platform_plugins')['ascend'].value,"
        " 'from ours import prelude' in pathlib.Path(alpha.__file__).with_name('worker.py').read_text())"
    )
    assert imported(ready, code) == "1 5 1.0 alpha:register True"
    assert before == {
        name: content for place in ("src", "checkout/alpha", "image")
        for name, content in state(ready.root.parent / place).items() if "__pycache__" not in name
    }  # fmt: skip
    assert "up to date" in ready.sync().stdout and "up to date" in ready.sync("--adopt", *directories).stdout
    checked = ready.sync("--check")
    assert checked.returncode == 0, checked.stdout
    assert set(json.loads(ready.sync("--json").stdout)["adopted"]) == {"alpha", "beta"}


def test_what_is_not_adopted_comes_from_the_pins(ready, tmp_path):
    place = trees(tmp_path / "src", ready)
    assert ready.sync("--adopt", str(place / "beta")).returncode == 0
    assert not (ready.upstream / "alpha").is_symlink() and set(ready.manifest["adopted"]) == {"beta"}
    assert ready.sync("--adopt", str(place / "alpha")).returncode == 0 and set(ready.manifest["adopted"]) == {
        "alpha",
        "beta",
    }
    assert ready.sync("--unadopt", "alpha", "--unadopt", "beta").returncode == 0
    assert "adopted" not in ready.manifest and (place / "alpha" / "worker.py").is_file()
    assert not any(file.is_symlink() for file in ready.upstream.rglob("*"))
    assert "exactly the pinned sources" in ready.sync("--check").stdout


def test_a_changed_file_is_accepted_only_when_asked_and_then_remembered(ready, tmp_path):
    place = trees(tmp_path / "src", ready, {"alpha/__init__.py": "V = 7\n", "alpha/more.py": ""})
    (place / "alpha" / "data.json").unlink()
    line = ready.fails("--adopt", str(place / "alpha"))
    assert "differs from the pinned alpha in 2 of 3 files: changed: alpha/__init__.py; missing: alpha/data.json" in line
    assert "--accept-differences" in line
    done = ready.sync("--adopt", str(place / "alpha"), "--accept-differences")
    assert done.returncode == 0, done.stderr
    assert "3 files (1 of them not pinned), 2 differ" in done.stdout
    assert "  changed: alpha/__init__.py" in done.stdout
    assert "2 files other than pinned" in done.stdout and imported(ready, "import alpha; print(alpha.V)") == "7"
    assert "up to date" in ready.sync().stdout
    checked = ready.sync("--check")
    assert checked.returncode == 1 and "changed: alpha/__init__.py (accepted)" in checked.stdout
    # What was accepted is that content, not whatever stands there later.
    (place / "alpha" / "__init__.py").write_text("V = 8\n")
    assert changes(ready.upstream, ready.manifest) == ["changed: alpha/__init__.py"]
    assert "in 1 of 3 files: changed: alpha/__init__.py" in ready.fails()
    (place / "alpha" / "__init__.py").write_text("V = 7\n")
    assert "up to date" in ready.sync().stdout


def test_a_file_that_a_patch_does_not_fit_is_refused_and_named(ready, tmp_path):
    place = trees(tmp_path / "src", ready, {"alpha/worker.py": ready.worker + CALLED.replace("2 *", "3 *")})
    for more in ([], ["--accept-differences"]):
        line = ready.fails("--adopt", str(place), *more)
        assert f"{place}/alpha cannot be adopted as alpha" in line and f"{place}/alpha/worker.py:" in line
        assert "alpha_patches.worker:double" in line
    core = CORE.replace("q * k", "q / k")
    line = ready.fails("--adopt", str(trees(tmp_path / "two", ready, {"beta/core/__init__.py": core}) / "beta"))
    assert "cannot be adopted as beta" in line and f"{tmp_path}/two/beta/core/__init__.py:" in line


def test_a_changed_function_of_the_real_verl_is_found(tmp_path, monkeypatch, capsys):
    shutil.copytree(upstream_dir() / "verl", tmp_path / "src" / "verl", ignore=shutil.ignore_patterns("__pycache__"))
    protocol = tmp_path / "src" / "verl" / "protocol.py"
    protocol.write_text(protocol.read_text().replace("    def concat(data:", "    def concat(data_list, data:"))
    monkeypatch.setenv("RECIPE_UPSTREAM", str(tmp_path / "tree"))
    assert main(["sync", "--adopt", str(tmp_path / "src"), "--accept-differences"]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path}/src/verl cannot be adopted as verl: verl_patches.protocol:concat" in error
    assert f"{protocol}:" in error and error.count("\n") == 1 and not (tmp_path / "tree").exists()


def test_a_package_that_hides_a_pinned_module_is_a_difference(ready, tmp_path):
    place = trees(tmp_path / "src", ready, {"alpha/worker/__init__.py": ready.worker + CALLED})
    assert "changed: alpha/worker/__init__.py" in ready.fails("--adopt", str(place / "alpha"))


def test_later_changes_are_seen(ready, tmp_path):
    place = trees(tmp_path / "src", ready)
    assert ready.sync("--adopt", str(place)).returncode == 0
    assert changes(ready.upstream, ready.manifest) == []
    worker = place / "alpha" / "worker.py"
    worker.write_text(worker.read_text() + "# mine\n")  # ours stands in for it, and was made of the old one
    (place / "beta" / "new.py").write_text("")
    (place / "alpha" / "data.json").unlink()
    found = changes(ready.upstream, ready.manifest)
    assert found[:2] == ["missing: alpha/data.json", "not ours: beta/new.py"]
    assert found[2] == f"changed: {worker} (ours was made of it)"
    shutil.rmtree(place)
    assert "missing: alpha/__init__.py" in changes(ready.upstream, ready.manifest)
    assert f"{place}/alpha, adopted as alpha, is not there" in ready.fails()
    assert ready.sync("--unadopt", "alpha", "--unadopt", "beta").returncode == 0


def test_the_line_goes_into_theirs_when_asked_once_and_comes_out_again(ready, tmp_path):
    place = trees(tmp_path / "src", ready)
    worker = place / "alpha" / "worker.py"
    worker.chmod(0o600)
    before = worker.read_text()
    assert ready.sync("--adopt", str(place)).returncode == 0 and worker.read_text() == before
    done = ready.sync("--insert-line")
    assert done.returncode == 0 and f"put 'from ours import prelude' into {worker}" in done.stdout
    assert worker.read_text() == before.replace("import X\n", "import X\nfrom ours import prelude\n")
    assert worker.stat().st_mode & 0o777 == 0o600
    assert changes(ready.upstream, ready.manifest) == [] and ready.sync("--check").returncode == 0
    done = ready.sync("--adopt", str(place), "--insert-line")
    assert done.returncode == 0 and f"{worker} has 'from ours import prelude'" in done.stdout
    assert worker.read_text().count("from ours import prelude") == 1
    assert (place / "beta" / "core" / "__init__.py").read_text() == CORE
    assert ready.sync("--restore").returncode == 0 and worker.read_text() == before
    assert "from ours" not in (ready.upstream / "alpha" / "worker.py").read_text()
    assert ready.sync().returncode == 0 and worker.read_text() == before


def test_trees_that_have_ours_already_are_as_pinned(ready, tmp_path):
    ours = (ready.worker + CALLED).replace("import X\n", "import X\nfrom ours import prelude\n")
    place = trees(tmp_path / "src", ready, {"alpha/worker.py": ours, "beta/core/__init__.py": OURS})
    done = ready.sync("--adopt", str(place))
    assert done.returncode == 0 and done.stdout.count("as pinned; 1 patch fits") == 2, done.stderr
    assert ready.manifest["changed"] == {} and imported(ready, "import beta.core as b; print(b.attend(2, 3))") == "5"


def test_without_the_pinned_files_the_patches_alone_decide(ready, tmp_path):
    place = trees(tmp_path / "src", ready, {"alpha/__init__.py": "V = 7\n"})
    shutil.rmtree(ready.cache)
    done = ready.sync("--adopt", str(place))
    assert done.returncode == 0, done.stderr
    assert "alpha: 3 files, not compared file by file" in done.stdout and "1 patch fits" in done.stdout
    assert "alpha, beta not compared file by file" in done.stdout
    assert (
        imported(ready, "import importlib.metadata as m; print(m.version('alpha'), m.version('beta-core'))")
        == "1.0 2.0"
    )


def test_a_tree_of_sync_serves_where_the_cache_is_empty(ready, tmp_path):
    assert ready.sync().returncode == 0
    shutil.rmtree(ready.cache)
    place = trees(tmp_path / "src", ready, {"alpha/__init__.py": "V = 7\n"})
    assert "changed: alpha/__init__.py" in ready.fails("--adopt", str(place))
    assert ready.sync("--adopt", str(trees(tmp_path / "two", ready))).returncode == 0
    assert (
        imported(ready, "import importlib.metadata as m; print(m.entry_points(group='vllm.platform_plugins'))") != "()"
    )


def test_a_package_of_another_profile_is_put_beside(ready, tmp_path):
    with (ready.root / "upstreams.toml").open("a") as pins:
        pins.write(f'[a3.gamma]\nversion = "3.0"\ngit = "/nowhere"\ncommit = "{"1" * 40}"\npackages = ["gamma"]\n'
                   '[a3.gamma.generate]\n"gamma/_version.py" = "v = 3\\n"\n')  # fmt: skip
    (ready.root / "gamma_patches").mkdir()
    text = (ready.root / "alpha_patches" / "worker.py").read_text().replace("alpha", "gamma").replace("worker", "tool")
    (ready.root / "gamma_patches" / "tool.py").write_text(text)
    files = {"gamma/tool.py": ready.worker + CALLED, "gamma/_version.py": "v = 'of a build'\n"}
    place = trees(tmp_path / "src", ready, files)
    done = ready.sync("--adopt", str(place / "gamma"))
    assert done.returncode == 0, done.stderr
    assert ready.manifest["beside"] == ["gamma"] and "gamma not compared file by file" in done.stdout
    # What a build writes is ours: vLLM-Ascend compares the version that vLLM's says.
    assert imported(ready, "import gamma._version as g; print(g.v)") == "3"
    assert ready.sync("--unadopt", "gamma", "--without", "gamma").returncode == 0
    assert ready.manifest["beside"] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--adopt", "{src}/nowhere"], "nowhere is not there; name a package's directory"),
        (["--adopt", "{src}/alpha/worker.py"], "is a file"),
        (["--adopt", "{src}/empty"], "found none of alpha, beta"),
        (["--adopt", "{root}"], "found none of alpha, beta"),  # alpha_patches is no alpha
        (["--adopt", "{src}", "{two}"], "alpha is in"),
        (["--adopt", "{root}/upstream"], "which sync makes anew; move it out of there first"),
        (["--unadopt", "alpha"], "--unadopt alpha: adopted is nothing"),
        (["--insert-line"], "--insert-line: no adopted tree holds alpha/worker.py"),
        (["--insert-line", "--check"], "--check changes nothing"),
        (["--accept-differences"], "--accept-differences goes with --adopt DIR"),
    ],
)
def test_wrong_words(ready, tmp_path, arguments, says):
    places = {"src": trees(tmp_path / "src", ready), "two": trees(tmp_path / "two", ready), "root": ready.root}
    (tmp_path / "src" / "empty").mkdir()
    trees(ready.upstream, ready)
    assert says in ready.fails(*(argument.format(**places) for argument in arguments), code=2)


def test_a_loop_of_links_ends(ready, tmp_path):
    place = trees(tmp_path / "src", ready)
    (place / "alpha" / "again").symlink_to(place / "alpha")
    assert ready.sync("--adopt", str(place)).returncode == 0
    assert [name for name in ready.manifest["files"] if "again" in name] == []


def test_an_unreadable_tree_is_said_so(monkeypatch, tmp_path):
    from recipe.sources import adopted

    def refuse(directory: Path) -> None:
        raise PermissionError(13, "Permission denied", str(directory))

    monkeypatch.setattr(adopted.os, "scandir", refuse)
    with pytest.raises(SourcesError, match=r"cannot be read \(Permission denied\)"):
        adopted.listing(tmp_path)
