# SPDX-License-Identifier: Apache-2.0
"""Sums: as sha256sum writes them, as the hubs' clients leave them; each file hashed once, whoever asks."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recipe.weights import sums as module
from recipe.weights.errors import DamagedInputError, InterruptedJobError, WeightsError
from recipe.weights.sums import Sums, hub_sums, read_sums

CONTENT = b"the weights" * 100_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    directory = tmp_path / "hf"
    directory.mkdir()
    (directory / "model.safetensors").write_bytes(CONTENT)
    (directory / "tokenizer.json").write_bytes(b"{}")
    return directory / "model.safetensors"


@pytest.mark.parametrize("option", ["--text", "--binary"])
def test_what_sha256sum_writes(option: str, file: Path, tmp_path: Path) -> None:
    written = subprocess.run(["sha256sum", option, str(file)], capture_output=True, check=True).stdout
    (tmp_path / "sums").write_bytes(written)
    sums = read_sums(tmp_path / "sums", file.parent)
    assert sums == {file: hashlib.sha256(CONTENT).hexdigest()}
    checked = Sums(sums)
    assert len(checked) == 1 and file not in checked
    checked.check()
    assert file in checked


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no file"),
        ("0" * 64, "line 1"),
        (f"\n{'0' * 63}g  model.safetensors\n", "line 2"),
        (f"{'0' * 64}  model.safetensors\n{'1' * 64}  a/model.safetensors\n", "a second sum"),
        (f"{'0' * 64}  ..\n", "names no file"),
        (f"\\{'0' * 64}  model\\\\n.safetensors\n", "line 1"),
    ],
)
def test_files_that_are_none_of_sums(text: str, words: str, file: Path, tmp_path: Path) -> None:
    (tmp_path / "sums").write_text(text)
    with pytest.raises(WeightsError, match=words):
        read_sums(tmp_path / "sums", file.parent)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_any_bytes_are_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "sums").write_bytes(content)
    with pytest.raises(WeightsError):
        read_sums(tmp_path / "sums", tmp_path / "hf")


def test_a_file_of_sums_that_is_a_shard(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    with pytest.raises(WeightsError, match="more than 1000 bytes"):
        read_sums(file, file.parent)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_sums(file.parent / "gone", file.parent)


def test_what_the_hubs_client_leaves(file: Path) -> None:
    """SHA-256 for what Git LFS holds, the SHA-1 of Git's blob for what Git holds; anything else is no sum."""
    tokenizer, notes = file.with_name("tokenizer.json"), file.parent / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    assert hub_sums([file, tokenizer]) == {}
    large, small = hashlib.sha256(CONTENT).hexdigest(), hashlib.sha1(b"blob 2\0{}").hexdigest()
    (notes / "model.safetensors.metadata").write_text(f"{'c' * 40}\n{large}\n1.5\n")
    (notes / "tokenizer.json.metadata").write_text(f'{"c" * 40}\n"{small}"\n1764500000.5\n')
    os.utime(tokenizer, (1764500001, 1764500001))
    expected = {file: large, tokenizer: small}
    assert hub_sums([file, tokenizer]) == expected
    Sums(expected).check()
    tokenizer.write_bytes(b"[]")
    with pytest.raises(DamagedInputError, match=r"tokenizer\.json: its Git's SHA-1"):
        Sums(expected).check()
    # A small file is its user's to change, afterwards.
    os.utime(tokenizer, (1764500002, 1764500002))
    assert hub_sums([file, tokenizer]) == {file: large}
    for text in ("", "one line", 'commit\nW/"etag-of-a-proxy"\n1.5\n', "commit\n\n\n", f"commit\n{small}\nnoon\n"):
        (notes / "model.safetensors.metadata").write_text(text)
        assert file not in hub_sums([file])


def test_a_link_into_the_hubs_cache(file: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    blob, other = tmp_path / "blobs" / digest, tmp_path / "elsewhere"
    blob.parent.mkdir()
    file.rename(blob)
    file.symlink_to(blob)
    assert hub_sums([file]) == {file: digest}
    other.write_bytes(CONTENT)
    file.unlink()
    file.symlink_to(other)
    assert hub_sums([file]) == {}


def test_each_file_is_hashed_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    real, met = module._digest, threading.Barrier(4)

    def digest(path: Path, *, of_git: bool) -> str:
        hashed.append(path)
        return real(path, of_git=of_git)

    def ask() -> None:
        met.wait(20)
        sums.check([file, file.with_name("tokenizer.json")])

    monkeypatch.setattr(module, "_digest", digest)
    sums = Sums({file: hashlib.sha256(CONTENT).hexdigest()})
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(ask) for _ in range(4)]:
            done.result()
    assert hashed == [file]


def test_a_wrong_sum_and_a_file_that_cannot_be_read(file: Path) -> None:
    sums = Sums({file: "0" * 64})
    with pytest.raises(DamagedInputError, match=r"model\.safetensors: its SHA-256 is \w{64}, expected 0{64}") as caught:
        sums.check()
    assert caught.value.file == file and file not in sums
    file.unlink()
    with pytest.raises(InterruptedJobError, match="cannot be read"):
        sums.check()
