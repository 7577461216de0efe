# SPDX-License-Identifier: Apache-2.0
"""A checkpoint counts as whole when every file is what its manifest says, and not otherwise."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.checkpoints import (
    MANIFEST,
    UNFINISHED,
    Manifest,
    NotWhole,
    list_files,
    look,
    read_manifest,
    sum_files,
    write_manifest,
)
from recipe.launch.verify import Rate, sum_problem
from recipe.sizes import size_text
from tests.recipe.saved import CONTENT, save, save_unfinished, unsynced

__all__ = ["unsynced"]
pytestmark = pytest.mark.usefixtures("unsynced")


def problem_of(checkpoint: Path, verify: bool) -> str | None:
    (found,) = look(checkpoint.parent)
    if found.problem is not None or not verify:
        return found.problem
    assert found.manifest is not None
    return sum_problem(found.path, found.manifest, lambda line: None)


def test_a_manifest_lists_every_file_with_what_sha256sum_says(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 4)
    files = read_manifest(checkpoint).files
    on_disk = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()}
    assert set(files) == on_disk - {MANIFEST} and set(CONTENT) == set(files)
    for name, one in files.items():
        data = (checkpoint / name).read_bytes()
        assert (one.bytes, one.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert not (checkpoint / UNFINISHED).exists() and problem_of(checkpoint, verify=True) is None


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: (path / "actor/dist_ckpt/.metadata").write_bytes(b""), ".metadata has 0 bytes, expected "),
        (lambda path: (path / "data.pt").unlink(), "data.pt is missing"),
        (lambda path: shutil.rmtree(path / "actor"), "is missing"),
        (lambda path: os.truncate(path / "actor/dist_ckpt/__1_0.distcp", 9), "__1_0.distcp has 9 bytes, expected "),
        (lambda path: (path / MANIFEST).unlink(), "it has no checkpoint.json"),
        (lambda path: (path / MANIFEST).write_bytes(b""), "checkpoint.json is torn"),
        (lambda path: (path / MANIFEST).write_bytes(b"\xff\xfe\n"), "checkpoint.json is not UTF-8"),
        (lambda path: (path / MANIFEST).write_text("[" * 10**5 + "\n"), "checkpoint.json is torn"),
        (lambda path: (path / MANIFEST).write_text('{"version": 2}\n'), "is torn, or of another kind"),
        (lambda path: path.rename(path.with_name("global_step_6")), "its checkpoint.json is of step 4"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, spoil: object, said: str) -> None:
    checkpoint = save(tmp_path, 4)
    spoil(checkpoint)  # type: ignore[operator]
    (found,) = look(tmp_path)
    assert found.problem is not None and said in found.problem and not found.unfinished


def test_a_save_that_was_cut_short_is_told_from_a_damaged_checkpoint(tmp_path: Path) -> None:
    save_unfinished(tmp_path, 4)
    (found,) = look(tmp_path)
    assert found.unfinished and found.problem == "it was not written to its end"
    (tmp_path / "global_step_4" / UNFINISHED).unlink()
    (found,) = look(tmp_path)
    assert not found.unfinished and not found.whole


NAMES = sorted({*CONTENT, MANIFEST})
SHARE = st.floats(0, 1, exclude_max=True)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("intact"), 4)


@pytest.fixture(scope="module")
def copied(intact: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    return lambda: Path(shutil.copytree(intact, tmp_path_factory.mktemp("copy") / intact.name))


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(NAMES), share=st.none() | SHARE, verify=st.booleans())
def test_no_file_can_be_cut_emptied_or_taken_away(
    copied: Callable[[], Path], name: str, share: float | None, verify: bool
) -> None:
    checkpoint = copied()
    path = checkpoint / name
    if share is None:
        path.unlink()
    else:
        os.truncate(path, int(share * path.stat().st_size))
    assert problem_of(checkpoint, verify) is not None


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(CONTENT)), share=SHARE, flipped=st.integers(0, 255))
def test_a_changed_byte_or_a_hole_of_zeros_shows_in_the_checksums(
    copied: Callable[[], Path], name: str, share: float, flipped: int
) -> None:
    checkpoint = copied()
    content = bytearray((checkpoint / name).read_bytes())
    start = int(share * len(content))
    if flipped:
        content[start] ^= flipped
    else:
        content[start:] = bytes(len(content) - start)
    (checkpoint / name).write_bytes(content)
    assert problem_of(checkpoint, verify=False) is None
    said = problem_of(checkpoint, verify=True)
    assert said is not None and said.startswith(f"{name} is not what was written")


def test_every_file_and_the_manifest_are_brought_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    checkpoint = save_unfinished(tmp_path, 4)
    sums = sum_files(checkpoint, list_files(checkpoint), threads=1, sync=True)
    assert synced == [str(checkpoint / name) for name in CONTENT]
    write_manifest(checkpoint, Manifest(4, sums))
    places = [checkpoint, checkpoint / "actor", checkpoint / "actor" / "dist_ckpt"]
    wanted = [*places, checkpoint / ".checkpoint.json.unfinished", checkpoint, tmp_path]
    assert synced[len(CONTENT) :] == [str(place) for place in wanted]


def test_names_that_are_no_checkpoints_are_left_alone(tmp_path: Path) -> None:
    for name in (
        "global_step_",
        "global_step_04",
        "global_step_x",
        "global_step_²",
        ".removed-global_step_4.1",
        "aside",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "global_step_7").write_text("a file")
    save(tmp_path, 10)
    save(tmp_path, 9)
    assert [one.step for one in look(tmp_path)] == [9, 10] and look(tmp_path / "none") == []


def test_a_link_in_a_checkpoint_is_not_listed_as_a_file(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 4)
    (checkpoint / "actor" / "link").symlink_to("/etc/hostname")
    with pytest.raises(NotWhole, match="actor/link is no plain file"):
        list_files(checkpoint)


def test_a_manifest_cannot_name_files_outside(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 4)
    value = json.loads((checkpoint / MANIFEST).read_text())
    value["files"]["../../etc/passwd"] = {"bytes": 1, "sha256": ""}
    (checkpoint / MANIFEST).write_text(json.dumps(value) + "\n")
    assert look(tmp_path)[0].problem == "its checkpoint.json is torn, or of another kind"


def test_sums_are_the_same_with_any_number_of_threads(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 4)
    read: list[int] = []
    names = list(list_files(checkpoint))
    one = sum_files(checkpoint, names, threads=1, read=read.append, sync=True)
    assert one == sum_files(checkpoint, names, threads=8) and sum(read) == sum(file.bytes for file in one.values())


def test_how_far_a_check_is_and_how_long_it_takes_is_said() -> None:
    said: list[str] = []
    now = [0.0]
    rate = Rate(9_400_000_000_000, said.append, lambda: now[0])
    for _ in range(100):
        now[0] += 0.25
        rate.add(940_000_000)
    assert len(said) == 2
    assert said[1] == "checked 75.2 GB of 9.4 TB, 3.8 GB/s, 41 min left"


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9.4e12, "9.4 TB")])
def test_sizes_in_words(count: float, text: str) -> None:
    assert size_text(count, base=1000) == text
