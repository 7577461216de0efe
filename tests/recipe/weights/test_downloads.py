# SPDX-License-Identifier: Apache-2.0
"""Downloads and copies that are not what they are named: each is refused in one line, and nothing is published.

One table for the tools that read a Hugging Face checkpoint, one for the tool that reads a Megatron one. What is wrong
with a checkpoint as a whole, not with its coming, is in test_bad_input.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipe.tiny.config import Fp8Model
from recipe.tiny.fp8 import make_fp8_model
from recipe.weights import cast_cli, convert, mcore_to_hf, torch_dist, zeros
from recipe.weights.hf_checkpoint import INDEX_NAME, read_header
from recipe.weights.job import run_job
from recipe.weights.workspace import MANIFEST
from tests.recipe.weights.tools import nothing_published

MODEL = Fp8Model(
    hidden_size=128, layers=3, experts=4, intermediate_size=128, moe_intermediate_size=128, heads=2, q_rank=64,
    kv_rank=64, shard_bytes=400_000,
)  # fmt: skip
LAST = "model.layers.2.mlp.experts.3.up_proj.weight"
EMBEDDING = "model.embed_tokens.weight"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0123456789abcdef" * 4 + b"\nsize 4302350824\n"
XET = b"# xet version 0\nfilesize = 4302350824\nhash = 'c0ffee'\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n"
HUB = Path(".cache", "huggingface", "download")


class Download:
    """A good checkpoint to spoil."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file_of: dict[str, str] = json.loads((directory / INDEX_NAME).read_text())["weight_map"]
        self.shard = directory / self.file_of[LAST]
        self.shards = sorted(directory.glob("*.safetensors"))

    def put(self, name: str, content: bytes) -> None:
        (self.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (self.directory / name).write_bytes(content)

    def config(self, **changes: Any) -> None:
        file = self.directory / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    def tensor(self, name: str, content: bytes, at: int = 0) -> None:
        """Overwrite bytes of a tensor."""
        entry = read_header(self.directory / self.file_of[name])[name]
        with entry.file.open("r+b") as stream:
            stream.seek(entry.begin + at)
            stream.write(content)

    def zero(self, name: str, at: int = 0) -> None:
        """Zeros in the tensor from byte `at` on."""
        self.tensor(name, bytes(read_header(self.directory / self.file_of[name])[name].nbytes - at), at)

    def scale(self, number: float) -> None:
        self.tensor(LAST + "_scale_inv", struct.pack("<f", number))

    def header(self, change: Callable[[dict[str, Any]], None], added: bytes = b"") -> None:
        raw = self.shard.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        self.shard.write_bytes(struct.pack("<Q", len(text)) + text + added + raw[8 + length :])


def hollow(file: Path, begin: int, end: int | None = None) -> None:
    """Leave bytes [begin, end) of the file unwritten, as a downloader does that starts with the full length."""
    raw = file.read_bytes()
    end = len(raw) if end is None else end
    file.unlink()
    with file.open("wb") as stream:
        stream.write(raw[:begin])
        stream.seek(end)
        stream.write(raw[end:])
        stream.truncate(len(raw))


def zeroed(file: Path, begin: int) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw[:begin] + bytes(len(raw) - begin))


def gap(d: Download) -> None:
    def shift(header: dict[str, Any]) -> None:
        for record in header.values():
            if "data_offsets" in record:
                record["data_offsets"] = [at + 64 for at in record["data_offsets"]]

    d.header(shift, bytes(64))


def swap(d: Download) -> None:
    first, second = d.shards[:2]
    other = first.with_name("other")
    first.rename(other)
    second.rename(first)
    other.rename(second)


def index(d: Download, **changed: Any) -> None:
    d.put(INDEX_NAME, json.dumps({"weight_map": d.file_of | changed}).encode())


def without_index(d: Download, file: Path) -> None:
    (d.directory / INDEX_NAME).unlink()
    file.unlink()


def replaced_by_folder(d: Download) -> None:
    d.shard.unlink()
    d.shard.mkdir()


# "SHARD" stands for the shard that is spoilt.
BROKEN: dict[str, tuple[Callable[[Download], object], list[str]]] = {
    "a hole to the end": (lambda d: hollow(d.shard, 100_000), ["SHARD", "hole"]),
    "a hole of a block": (lambda d: hollow(d.shard, 40_960, 45_056), ["SHARD", "byte 40960", "hole"]),
    "holes alone": (lambda d: [hollow(file, 50_000) for file in d.shards], ["hole"]),
    "aria2's note": (lambda d: d.put(d.shard.name + ".aria2", b"\0\1"), ["SHARD.aria2", "not finished"]),
    "a note .incomplete": (lambda d: d.put(d.shard.name + ".incomplete", b""), ["SHARD.incomplete", "not finished"]),
    "a note .part": (lambda d: d.put(d.shard.name + ".part", b"x"), ["SHARD.part", "not finished"]),
    "a note at the tokenizer": (lambda d: d.put("tokenizer.json.aria2", b""), ["tokenizer.json.aria2", "not finished"]),
    "a note at the index": (lambda d: d.put(INDEX_NAME + ".part", b""), [INDEX_NAME + ".part", "not finished"]),
    "the hub's unfinished file": (
        lambda d: d.put(str(HUB / "q83_.0f3a.incomplete"), b"x"), ["q83_.0f3a.incomplete", "not finished"]
    ),
    "LFS pointer for a shard": (lambda d: d.shard.write_bytes(LFS), ["SHARD", "Git LFS pointer"]),
    "Xet pointer for a shard": (lambda d: d.shard.write_bytes(XET), ["SHARD", "Xet pointer"]),
    "web page for a shard": (lambda d: d.shard.write_bytes(PAGE), ["SHARD", "web page"]),
    "LFS pointer for config.json": (lambda d: d.put("config.json", LFS), ["config.json", "Git LFS pointer"]),
    "LFS pointer for the index": (lambda d: d.put(INDEX_NAME, LFS), [INDEX_NAME, "Git LFS pointer"]),
    "empty shard": (lambda d: d.shard.write_bytes(b""), ["SHARD", "0 bytes"]),
    "truncated shard": (lambda d: os.truncate(d.shard, 200_000), ["SHARD", "truncated"]),
    "trailing bytes": (lambda d: d.shard.write_bytes(d.shard.read_bytes() + b"\0"), ["SHARD", "1 bytes after"]),
    "a gap": (gap, ["SHARD", "64 bytes between the header and", "belong to no tensor"]),
    "a folder for a shard": (replaced_by_folder, ["SHARD", "no plain file"]),
    "zeros from the middle on": (lambda d: zeroed(d.shards[1], 200_000), ["model-00002-of-"]),
    "an FP8 matrix of zeros": (
        lambda d: d.zero(LAST), ["SHARD", LAST, "all zeros"]
    ),
    "a BF16 matrix of zeros": (lambda d: d.zero(EMBEDDING), [EMBEDDING, "all zeros"]),
    "a scale of zero": (lambda d: d.scale(0.0), [LAST + "_scale_inv", "0.0 at [0, 0]"]),
    "a negative scale": (lambda d: d.scale(-1e-4), [LAST + "_scale_inv", "above zero"]),
    "a scale that is no number": (lambda d: d.scale(float("nan")), [LAST + "_scale_inv", "nan"]),
    "an infinite scale": (lambda d: d.scale(float("inf")), [LAST + "_scale_inv", "inf"]),
    "a shard missing by the index": (lambda d: d.shard.unlink(), ["SHARD", "cannot be read"]),
    "a shard missing by its number": (lambda d: without_index(d, d.shards[1]), ["number 2 is missing"]),
    "the last shard missing": (lambda d: without_index(d, d.shards[-1]), ["is missing", "-of-"]),
    "two shards that changed names": (swap, [INDEX_NAME, "does not hold it"]),
    "a number in the index": (lambda d: index(d, **{LAST: 7}), [INDEX_NAME, LAST, "7"]),
    "a path in the index": (lambda d: index(d, **{LAST: "../x.safetensors"}), [INDEX_NAME, "../x.safetensors"]),
    "the hub's SHA-256 is another": (
        lambda d: d.put(str(HUB / f"{d.shard.name}.metadata"), b"commit\n" + b"ab" * 32 + b"\n1e11\n"),
        ["SHARD", "SHA-256", "abab"],
    ),
}  # fmt: skip
# Of the small files: config.json and what is copied beside it, for the tools that read or copy them.
SIZES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "null": ({"hidden_size": None}, ["hidden_size is None"]),
    "text": ({"hidden_size": "128"}, ["hidden_size is '128'"]),
    "negative": ({"num_hidden_layers": -3}, ["num_hidden_layers is -3"]),
    "bool": ({"num_hidden_layers": True}, ["num_hidden_layers is True"]),
    "huge": ({"num_hidden_layers": 10**12}, ["num_hidden_layers is 1000000000000"]),
    "many layers": ({"num_hidden_layers": 10**9, "num_nextn_predict_layers": 0}, ["1000000000 layers"]),
    "many experts": ({"n_routed_experts": 10**9}, ["n_routed_experts is 1000000000"]),
    "fraction": ({"vocab_size": 1280.0}, ["vocab_size is 1280.0"]),
    "list": ({"kv_lora_rank": [64]}, ["kv_lora_rank is [64]"]),
    "switch": ({"tie_word_embeddings": "false"}, ["tie_word_embeddings is 'false'"]),
    "another width": ({"hidden_size": 256}, ["[", "128]", "256]"]),
    "more experts": ({"n_routed_experts": 8}, ["mlp.gate.weight", "[8, 128]"]),
    "another vocabulary": ({"vocab_size": 320}, ["embed", "320"]),
    "fewer layers": ({"num_hidden_layers": 2, "num_nextn_predict_layers": 0}, ["layers."]),
    "more layers": ({"num_hidden_layers": 5, "num_nextn_predict_layers": 0}, ["layers."]),
    "no model": ({"model_type": ["deepseek_v3"]}, ["model_type"]),
}
SMALL: dict[str, tuple[Callable[[Download], object], list[str]]] = {
    **{
        f"config.json: {kind}": (lambda d, changes=changes: d.config(**changes), ["config.json", *words])  # type: ignore[misc]
        for kind, (changes, words) in SIZES.items()
    },
    "config.json is a list": (lambda d: d.put("config.json", b"[1]"), ["config.json", "object"]),
    "config.json is too deep": (lambda d: d.put("config.json", b"[" * 100_000), ["config.json", "JSON"]),
    "config.json is zeros": (lambda d: d.put("config.json", bytes(900)), ["config.json", "JSON"]),
}
COPIED: dict[str, tuple[Callable[[Download], object], list[str]]] = {
    "LFS pointer for the tokenizer": (lambda d: d.put("tokenizer.json", LFS), ["tokenizer.json", "Git LFS pointer"]),
    "Xet pointer for a vocabulary": (lambda d: d.put("tokenizer.model", XET), ["tokenizer.model", "Xet pointer"]),
    "web page for the tokenizer": (lambda d: d.put("tokenizer.json", PAGE), ["tokenizer.json", "web page"]),
    "empty tokenizer": (lambda d: d.put("tokenizer.json", b""), ["tokenizer.json", "empty"]),
    "tokenizer of zeros": (lambda d: d.put("tokenizer.json", b'{"a":' + bytes(99)), ["tokenizer.json", "zero bytes"]),
    "cut tokenizer": (lambda d: d.put("tokenizer.json", b'{"model": {"vo'), ["tokenizer.json", "JSON"]),
    "the hub's SHA-1 of the tokenizer is another": (
        lambda d: d.put(str(HUB / "tokenizer.json.metadata"), b"commit\n" + b"cd" * 20 + b"\n1e11\n"),
        ["tokenizer.json", "SHA-1", "cdcd"],
    ),
}
HF_TOOLS: dict[str, Callable[[Path, Path], int]] = {
    "cast": lambda source, out: cast_cli.main(["--input-fp8-hf-path", str(source), "--output-bf16-hf-path", str(out)]),
    "torch_dist": lambda source, out: convert.main(["--load-dir", str(source), "--save-dir", str(out)]),
    "legacy": lambda source, out: convert.main(
        ["--load-dir", str(source), "--save-dir", str(out), "--format", "legacy", "--target-tensor-parallel-size", "2"]
    ),
}
# The legacy format has no place for a tokenizer, and the cast of a model that it does not know has no layout.
CASES = [(tool, kind) for tool in HF_TOOLS for kind in BROKEN] + [
    (tool, kind)
    for tool in HF_TOOLS
    for kind in (*SMALL, *COPIED)
    if not (tool == "legacy" and kind in COPIED) and not (tool == "cast" and kind == "config.json: no model")
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """hf, and the checkpoint mcore made of it."""
    directory = tmp_path_factory.mktemp("good")
    make_fp8_model(MODEL, directory / "hf", lambda line: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_dist, "FILE_BYTES", 600_000)
        run_job(torch_dist.plan(directory / "hf", directory / "mcore").job)
    return directory


def refusal(run: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a tool that refuses."""
    capsys.readouterr()
    assert run() == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("written:")]
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def test_there_are_forty() -> None:
    assert len(BROKEN) + len(SMALL) + len(COPIED) >= 40


@pytest.mark.parametrize(("tool", "kind"), CASES, ids=[f"{tool}: {kind}" for tool, kind in CASES])
def test_refused_by_every_tool(
    tool: str, kind: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "hf"
    shutil.copytree(good / "hf", source)
    download = Download(source)
    spoil, words = {**BROKEN, **SMALL, **COPIED}[kind]
    spoil(download)
    line = refusal(lambda: HF_TOOLS[tool](source, tmp_path / "out"), capsys)
    for word in words:
        assert word.replace("SHARD", download.shard.name) in line, line
    assert nothing_published(tmp_path / "out")


def flipped(file: Path, at: int, count: int = 64) -> None:
    raw = bytearray(file.read_bytes())
    for i in range(at, at + count):
        raw[i] ^= 0x10
    file.write_bytes(raw)


Spoil = Callable[[Path], object]
MANIFEST_OF = "__1_0.distcp"
BROKEN_CHECKPOINT: dict[str, tuple[Spoil, list[str]]] = {
    "a hole to the end": (lambda c: hollow(c / MANIFEST_OF, 100_000), [MANIFEST_OF, "hole"]),
    "a hole of a block": (lambda c: hollow(c / MANIFEST_OF, 40_960, 45_056), [MANIFEST_OF, "byte 40960", "hole"]),
    "holes alone": (lambda c: hollow(c / MANIFEST_OF, 0), [MANIFEST_OF, "hole"]),
    "aria2's note": (lambda c: (c / f"{MANIFEST_OF}.aria2").write_bytes(b""), [MANIFEST_OF + ".aria2", "not finished"]),
    "a note .part": (lambda c: (c / ".metadata.part").write_bytes(b""), [".metadata.part", "not finished"]),
    "LFS pointer": (lambda c: (c / MANIFEST_OF).write_bytes(LFS), [MANIFEST_OF, f"has {len(LFS)} bytes"]),
    "LFS pointer for .metadata": (lambda c: (c / ".metadata").write_bytes(LFS), [".metadata", "Git LFS pointer"]),
    "Xet pointer for metadata.json": (lambda c: (c / "metadata.json").write_bytes(XET), ["metadata.json", "Xet"]),
    "empty": (lambda c: (c / MANIFEST_OF).write_bytes(b""), [MANIFEST_OF, "has 0 bytes"]),
    "truncated": (lambda c: os.truncate(c / MANIFEST_OF, 200_000), [MANIFEST_OF, "has 200000 bytes"]),
    "trailing": (lambda c: (c / MANIFEST_OF).open("ab").write(b"x"), [MANIFEST_OF, "bytes, weights_manifest.json"]),
    "64 flipped bytes": (lambda c: flipped(c / MANIFEST_OF, 300_000), [MANIFEST_OF, "CRC-32", "its archive says"]),
    "zeros from the middle on": (lambda c: zeroed(c / MANIFEST_OF, 300_000), [MANIFEST_OF]),
    "a file missing": (lambda c: (c / MANIFEST_OF).unlink(), [MANIFEST_OF, "cannot be read"]),
    "two files that changed names": (
        lambda c: ((c / MANIFEST_OF).rename(c / "x"), (c / "__0_0.distcp").rename(c / MANIFEST_OF),
                   (c / "x").rename(c / "__0_0.distcp")),
        ["distcp"],
    ),
    ".metadata with another byte": (lambda c: flipped(c / ".metadata", 900, 1), [".metadata", "checksum"]),
    "common.pt with another byte": (lambda c: flipped(c / "common.pt", 90, 1), ["common.pt", "checksum"]),
    "a manifest that is none": (lambda c: (c / MANIFEST).write_text('{"files": [3]}'), [MANIFEST, "understood"]),
}  # fmt: skip


def back(directory: Path) -> Callable[[], int]:
    places = "--load-dir", str(directory / "mcore"), "--save-dir", str(directory / "out")
    return lambda: mcore_to_hf.main([*places, "--hf-config", str(directory / "hf")])


@pytest.mark.parametrize("kind", BROKEN_CHECKPOINT)
def test_a_broken_checkpoint_is_refused(
    kind: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    spoil, words = BROKEN_CHECKPOINT[kind]
    spoil(tmp_path / "mcore")
    line = refusal(back(tmp_path), capsys)
    assert all(word in line for word in words), line
    assert nothing_published(tmp_path / "out")


@pytest.mark.parametrize("kind", [*SMALL, *COPIED])
def test_a_broken_description_of_a_checkpoint_is_refused(
    kind: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    spoil, words = {**SMALL, **COPIED}[kind]
    spoil(Download(tmp_path / "hf"))
    line = refusal(back(tmp_path), capsys)
    assert words[0] in line or "config.json" in line, line
    assert nothing_published(tmp_path / "out")


def test_a_checkpoint_with_a_matrix_of_zeros(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its archives are in order: it was made of such a model."""
    shutil.copytree(good / "hf", tmp_path / "hf")
    Download(tmp_path / "hf").zero(EMBEDDING)
    with monkeypatch.context() as patch:
        patch.setattr(zeros, "suspicious", lambda entry: False)
        run_job(torch_dist.plan(tmp_path / "hf", tmp_path / "mcore").job)
    assert f"{EMBEDDING} is all zeros" in refusal(back(tmp_path), capsys)


def test_zeros_that_are_right(good: Path, tmp_path: Path) -> None:
    """Biases, norms, and the rows that rounded a vocabulary up."""
    shutil.copytree(good / "hf", tmp_path / "hf")
    download = Download(tmp_path / "hf")

    download.zero(EMBEDDING, 1024)
    for name in download.file_of:
        if name.endswith(("e_score_correction_bias", "norm.weight")):
            download.zero(name)
    for name, tool in HF_TOOLS.items():
        assert tool(tmp_path / "hf", tmp_path / name) == 0


def sums_of(directory: Path, change: str = "") -> str:
    lines = []
    for file in sorted(directory.glob("*.safetensors")):
        digest = "0" * 64 if file.name == change else hashlib.sha256(file.read_bytes()).hexdigest()
        lines.append(f"{digest}  ./{file.name}\n")
    return "".join(lines)


def test_sums_of_the_user(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(good / "hf", tmp_path / "hf")
    download, sums = Download(tmp_path / "hf"), tmp_path / "SHA256SUMS"
    command = ["--load-dir", str(download.directory), "--save-dir", str(tmp_path / "out"), "--sha256", str(sums)]
    for text, words in (
        (sums_of(download.directory, download.shard.name), [download.shard.name, "SHA-256", "0" * 64]),
        ("".join(sums_of(download.directory).splitlines(True)[1:]), [download.shards[0].name, "no sum"]),
        ("d41d8cd98f00b204e9800998ecf8427e  x\n", ["line 1", "sha256sum"]),
        (f"{'0' * 64}  other.bin\n", ["names no file"]),
        ("\0\xff", ["sha256sum"]),
    ):
        sums.write_text(text)
        line = refusal(lambda: convert.main(command), capsys)
        assert all(word in line for word in words), line
        assert nothing_published(tmp_path / "out")
    # Zeros that are shown to be what was published are taken.
    download.zero(EMBEDDING)
    sums.write_text(sums_of(download.directory))
    assert convert.main([*command, "--overwrite"]) == 0
    assert f"{len(download.shards)} files, by their SHA-256" in capsys.readouterr().out


def test_what_the_hubs_clients_leave(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sums that are right are used; a pickle of the other hub's client is neither read nor copied."""
    shutil.copytree(good / "hf", tmp_path / "hf")
    download = Download(tmp_path / "hf")
    for line in sums_of(download.directory).splitlines():
        digest, name = line.split("  ./")
        download.put(str(HUB / f"{name}.metadata"), f"commit\n{digest}\n1e11\n".encode())
    for name in (".msc", ".mdl"):
        download.put(name, b"cos\nsystem\n(S'exit 1'\ntR.")
    assert HF_TOOLS["cast"](tmp_path / "hf", tmp_path / "out") == 0
    assert f"{len(download.shards)} files, by their SHA-256" in capsys.readouterr().out
    assert not any(path.name.startswith(".") for path in (tmp_path / "out").iterdir())


def test_stray_large_files_are_left_alone_and_said(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(good / "hf", tmp_path / "hf")
    stray = tmp_path / "hf" / "model-00003-of-00005.safetensors.1"
    with stray.open("wb") as stream:
        stream.truncate(2_000_000_000)
    (tmp_path / "hf" / "figures.tar").touch()
    os.truncate(tmp_path / "hf" / "figures.tar", 100_000_000)
    stray.chmod(0)
    for name, tool in HF_TOOLS.items():
        assert tool(tmp_path / "hf", tmp_path / name) == 0
        line = next(
            line for line in capsys.readouterr().out.splitlines() if line.startswith("neither read nor copied: ")
        )
        assert "figures.tar" in line and "2100000000 bytes" in line and stray.name in line
        assert not list((tmp_path / name).rglob("*.1")) + list((tmp_path / name).rglob("*.tar"))


@pytest.mark.parametrize("tool", [*HF_TOOLS, "back"])
def test_another_tokenizer_is_seen(tool: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By all tools whose output has it: the legacy format has no place for it. Its time alone is nothing."""
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    run = back(tmp_path) if tool == "back" else lambda: HF_TOOLS[tool](tmp_path / "hf", tmp_path / "out")
    assert run() == 0
    os.utime(tmp_path / "hf" / "tokenizer.json", ns=(1, 1))
    capsys.readouterr()
    assert run() == 0 and "complete already" in capsys.readouterr().out
    (tmp_path / "hf" / "tokenizer_config.json").write_text('{"chat_template": "other"}')
    if tool == "legacy":
        assert run() == 0
    else:
        assert "other input or options" in refusal(run, capsys)
