# SPDX-License-Identifier: Apache-2.0
"""What every test needs: our packages and the copied upstreams importable, in child processes too, on one thread.

MindSpeed patches the whole process that imports it, and verl imports it where it can: tests see the upstreams without
it, and those marked `mindspeed` start processes of their own with `mindspeed_upstream`, the tree that has it.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.recipe.plan.layouts import Made
    from tests.recipe.plan.workers import Workers

REPO = Path(__file__).resolve().parents[1]
# RECIPE_UPSTREAM lets a working tree borrow another tree's synced sources instead of its own.
_GIVEN = Path(os.environ.get("RECIPE_UPSTREAM", REPO / "upstream")).absolute()
_HAS_MINDSPEED = (_GIVEN / "mindspeed").is_dir()
MANIFEST = "MANIFEST.json"
MINDSPEED_COMMAND = "python -m recipe sync --with mindspeed"
# What is not run, by the reason.
_not_run = pytest.StashKey[dict[str, list[str]]]()
# As they were before this file set them.
_OUTSIDE = {name: os.environ.get(name) for name in ("TMPDIR", "RECIPE_UPSTREAM", "PYTHONPATH")}


def _heed_interrupts() -> None:
    """A background job of a shell ignores Ctrl-C, and so would all that a test starts and interrupts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _own_temporary_directory() -> None:
    """A directory for all that tests and what they start leave in temporary ones: vLLM's sockets, verl's lock files.

    It is gone when this process ends. pytest's own directories stay, some sessions long, where they are looked for.
    """
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="tests-")
    atexit.register(_remove, tempfile.tempdir, os.getpid())


def _remove(directory: str, owner: int) -> None:
    if os.getpid() == owner:  # not in a child that was forked
        shutil.rmtree(directory, ignore_errors=True)


def _without_mindspeed(tree: Path) -> Path:
    """A directory of links to all that `tree` holds but MindSpeed."""
    links = Path(tempfile.mkdtemp(prefix="upstream-"))
    for entry in tree.iterdir():
        if not entry.name.startswith("mindspeed") and entry.name != MANIFEST:
            (links / entry.name).symlink_to(entry)
    return links


def _manifest_without_mindspeed() -> None:
    """Write into the directory of links what a sync without MindSpeed would have: preflight reads it."""
    from recipe.sources.compose import wanted
    from recipe.sources.pins import read_pins

    manifest = json.loads((_GIVEN / MANIFEST).read_text(encoding="utf-8"))
    profile = read_pins(REPO / "upstreams.toml").profile(manifest["profile"], ())
    files = {name: digest for name, digest in manifest["files"].items() if not name.startswith("mindspeed")}
    manifest |= {"beside": [], "files": files, "pins": wanted(profile, REPO, manifest["state"] == "pristine").digest()}
    (UPSTREAM / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


_heed_interrupts()
_own_temporary_directory()
UPSTREAM = _without_mindspeed(_GIVEN) if _HAS_MINDSPEED else _GIVEN
if _HAS_MINDSPEED or "RECIPE_UPSTREAM" in os.environ:
    os.environ["RECIPE_UPSTREAM"] = str(UPSTREAM)


def _gives_mindspeed(path: str) -> bool:
    return _HAS_MINDSPEED and Path(path or ".").resolve() == _GIVEN.resolve()


_PATHS = [str(REPO), str(UPSTREAM)]
sys.path[:] = [path for path in sys.path if not _gives_mindspeed(path)]
for _path in reversed(_PATHS):
    if _path not in sys.path:
        sys.path.insert(0, _path)
if _HAS_MINDSPEED:
    _manifest_without_mindspeed()

_inherited = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p not in _PATHS]
os.environ["PYTHONPATH"] = os.pathsep.join([*_PATHS, *(p for p in _inherited if not _gives_mindspeed(p))])
# Two cores are shared with gloo, Ray and the tests' own worker processes: one thread each, always.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
# How long an example takes is a matter of what runs beside it.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")
# A test that wants a run directory makes its own; one inherited from a shell would be written into.
for _name in ("RECIPE_RUN_DIR", "RECIPE_RUN_ID"):
    os.environ.pop(_name, None)


@pytest.fixture(scope="session")
def mindspeed_upstream() -> Path:
    """The upstream tree with MindSpeed in it, for the path of a child process."""
    assert _HAS_MINDSPEED, "mark the test with @pytest.mark.mindspeed"
    return _GIVEN


@pytest.fixture(scope="session")
def tiny_made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """Makes the tiny model of that name with experts of this width, once."""
    from recipe.tiny.members import DEEPSEEK_V3
    from tests.recipe.plan.layouts import make_model

    @functools.cache
    def made(width: int, member: str = DEEPSEEK_V3) -> Made:
        return make_model(tmp_path_factory.mktemp("model"), width, member)

    return made


@pytest.fixture(scope="session")
def workers_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, bool], Workers]:
    """Processes whose ranks run a module, with or without MindSpeed, which changes all of Megatron-core in a process;
    each is started once."""
    from tests.recipe.plan.workers import Workers

    @functools.cache
    def started(module: str, mindspeed: bool) -> Workers:
        upstream = request.getfixturevalue("mindspeed_upstream") if mindspeed else None
        made = Workers(module, upstream, tmp_path_factory.mktemp("workers") / "log")
        request.addfinalizer(made.close)
        return made

    return started


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the tests out that need what is not there, and remember them."""
    config.stash[_not_run] = {}
    for mark, why in _NEEDS:
        out = [item for item in items if item.get_closest_marker(mark)]
        reason = why() if out else None
        if reason is not None:
            config.stash[_not_run][reason] = [item.nodeid for item in out]
            items[:] = [item for item in items if item not in out]
            config.hook.pytest_deselected(items=out)
    if hasattr(config, "workeroutput"):  # one of the processes that tests are handed out to
        config.workeroutput["not_run"] = config.stash[_not_run]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """The processes that tests are handed out to make their own of what this one has made for itself."""
    for name, value in _OUTSIDE.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[_not_run] = getattr(node, "workeroutput", {}).get("not_run", {})


def _why_no_mindspeed() -> str | None:
    if _HAS_MINDSPEED:
        return None
    return f"need MindSpeed, which is not in {_GIVEN}; bring it with `{MINDSPEED_COMMAND}`"


def _why_no_hosts() -> str | None:
    from tests.scripts.hosts import why_not

    reason = why_not()
    return reason and f"need network namespaces, which cannot be made here: {reason}"


def _why_no_small_disk() -> str | None:
    """A file system that a test can fill is mounted where nobody else sees it."""
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", tempfile.gettempdir()]
    if shutil.which("unshare") is None:
        return "need unshare (util-linux), with which a small file system is mounted"
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if made.returncode == 0 else f"need a small file system: {made.stderr.strip()}"


_NEEDS = (("mindspeed", _why_no_mindspeed), ("hosts", _why_no_hosts), ("small_disk", _why_no_small_disk))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if bats := os.environ.get("RECIPE_BATS_RESULT"):  # scripts/test.sh
        terminalreporter.write_line(f"bats: {bats}")
    for reason, names in config.stash.get(_not_run, {}).items():
        terminalreporter.section("NOT RUN", yellow=True)
        terminalreporter.write_line(f"{len(names)} tests {reason}:")
        for name in names:
            terminalreporter.write_line(f"  {name}")
