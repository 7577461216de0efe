# SPDX-License-Identifier: Apache-2.0
"""Jobs: whole or not at all, resumed after a kill, refused over other input, verified to the byte."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from recipe.weights.errors import InterruptedJobError, WeightsError
from recipe.weights.hf_checkpoint import TensorEntry
from recipe.weights.inputs import mark_of
from recipe.weights.job import Copy, Job, Literal, OutputFile, digests, layer_of, run_job, verify_job
from recipe.weights.output import FileDestination, Sink
from recipe.weights.source import Reader, Source
from recipe.weights.sums import Sums
from recipe.weights.workspace import LEDGER, MANIFEST, WORK, is_complete

SIZE = 5000


@dataclass(frozen=True)
class Spy:
    """A part that tells when it is made, and can fail."""

    part: Any
    seen: list[str] = field(default_factory=list)
    act: Callable[[], None] = lambda: None

    @property
    def nbytes(self) -> int:
        return self.part.nbytes

    @property
    def label(self) -> str:
        return self.part.label

    @property
    def reads(self) -> Any:
        return self.part.reads

    def emit(self, sink: Sink, reader: Reader) -> None:
        self.seen.append(self.label)
        self.act()
        self.part.emit(sink, reader)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Six files in two folders, each a header and half a tensor."""
    source = tmp_path / "in"
    source.mkdir()
    data = source / "data"
    data.write_bytes(bytes(i % 253 for i in range(6 * SIZE)))
    entries = [TensorEntry(f"layers.{n}.w", "U8", (SIZE,), data, n * SIZE, SIZE) for n in range(6)]
    files = [
        OutputFile(f"part{n % 2}/file{n}", (Literal(b"head%d" % n), Copy(Source(entry), 100, SIZE - 100)))
        for n, entry in enumerate(entries)
    ]
    small = [("config.json", b"{}"), ("index.json", b"[1]")]
    blank = Job("test", source, tmp_path / "out", "", "", files, lambda: small, {})
    return planned_again(blank)


def planned_again(job: Job, **options: Any) -> Job:
    """The job over its input as it is now."""
    entries = [entry for file in job.files for part in file.parts for entry in part.reads]
    marks = {entry.file: mark_of(entry.file) for entry in entries}
    return replace(job, marks=marks, **digests("test", options, entries, marks))


def content(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()
    }


def spied(job: Job, seen: list[str], at: str = "", act: Callable[[], None] = lambda: None) -> Job:
    """The job with parts that note their labels, and act at one of them."""
    nothing: Callable[[], None] = lambda: None  # noqa: E731
    return replace(
        job,
        files=[
            OutputFile(f.name, [Spy(part, seen, act if part.label == at else nothing) for part in f.parts])
            for f in job.files
        ],
    )


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_writes_the_files_and_a_manifest_of_their_checksums(job: Job, workers: int) -> None:
    done: list[int] = []
    assert run_job(job, workers=workers, progress=done.append)
    data = (job.input / "data").read_bytes()
    files = content(job.output)
    assert set(files) == {*(f"part{n % 2}/file{n}" for n in range(6)), "config.json", "index.json", MANIFEST}
    for n in range(6):
        assert files[f"part{n % 2}/file{n}"] == b"head%d" % n + data[n * SIZE + 100 : (n + 1) * SIZE]
    listed = json.loads(files[MANIFEST])["files"]
    assert {r["name"]: (r["bytes"], r["crc32"]) for r in listed} == {
        name: (len(raw), zlib.crc32(raw)) for name, raw in files.items() if name != MANIFEST
    }
    assert listed[-1]["name"] == "index.json"
    assert sum(done) == job.nbytes
    assert not (job.output / WORK).exists()


def test_a_second_run_does_nothing_and_other_input_is_refused(job: Job) -> None:
    run_job(job)
    before = content(job.output)
    seen: list[str] = []
    assert not run_job(spied(job, seen)) and not seen
    os.utime(job.input / "data", ns=(1, 1))
    other_job = planned_again(job)
    assert other_job.identity != job.identity
    with pytest.raises(WeightsError, match="made from other input or options"):
        run_job(other_job)
    assert content(job.output) == before
    assert run_job(other_job, overwrite=True)
    assert json.loads((job.output / MANIFEST).read_text())["identity"] == other_job.identity


class Killed(BaseException):
    """What a kill does to a thread, as far as files are concerned: nothing more is written."""


def test_resumes_where_it_stopped(job: Job) -> None:
    """One worker, killed in the fourth file: three files are not made again, and the bytes are those of one run."""
    run_job(replace(job, output=job.output.with_name("straight")), workers=1)

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        run_job(spied(job, [], "layers.3.w", kill), workers=1)
    assert not is_complete(job.output) and set(path.name for path in job.output.iterdir()) == {WORK}
    seen: list[str] = []
    done: list[int] = []
    assert run_job(spied(job, seen), workers=1, progress=done.append)
    assert [label for label in seen if label != "header"] == ["layers.3.w", "layers.4.w", "layers.5.w"]
    assert sum(done) == job.nbytes
    assert content(job.output) == content(job.output.with_name("straight"))


def test_a_line_that_a_kill_cut_short_does_not_swallow_the_next(job: Job) -> None:
    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        run_job(spied(job, [], "layers.2.w", kill), workers=1)
    with (job.output / WORK / LEDGER).open("a") as ledger:
        ledger.write('{"name": "part')
    with pytest.raises(Killed):
        run_job(spied(job, [], "layers.4.w", kill), workers=1)
    seen: list[str] = []
    run_job(spied(job, seen), workers=1)
    assert [label for label in seen if label != "header"] == ["layers.4.w", "layers.5.w"]


@pytest.mark.parametrize("call", ["rename", "mkdir"])
def test_a_file_system_that_refuses_is_one_line(call: str, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "somewhere")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(InterruptedJobError, match=r"out: .*Read-only file system"):
            run_job(job)
    assert run_job(job)


def test_an_unfinished_job_over_other_input_is_refused(job: Job) -> None:
    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        run_job(spied(job, [], "layers.3.w", kill), workers=1)
    before = content(job.output)
    other_job = planned_again(job, other=1)
    with pytest.raises(WeightsError, match="unfinished job over other input"):
        run_job(other_job)
    assert content(job.output) == before
    seen: list[str] = []
    assert run_job(spied(other_job, seen), overwrite=True)
    assert len(seen) == 12


@pytest.mark.parametrize("torn", ["", '{"name": "part0/fi', '{"name": "part0/file0", "nbytes": 99, "crc32": 1}\n'])
def test_a_ledger_is_believed_only_about_whole_files(torn: str, job: Job) -> None:
    """The last line cut by a kill, or a line about a file of another size."""
    run_job(job, workers=1)
    straight = content(job.output)
    for path in job.output.rglob("*"):
        if path.is_file():
            path.unlink()
    work = job.output / WORK
    (work / "part0").mkdir(parents=True)
    (work / "part0" / "file0").write_bytes(b"half")
    header = json.dumps({"options": job.options, "identity": job.identity})
    (work / "ledger.jsonl").write_text(f"{header}\n{torn}")
    assert run_job(job)
    assert content(job.output) == straight


@pytest.mark.parametrize("old", [False, True])
def test_stopped_at_any_call_that_changes_the_disk(old: bool, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """While files are moved, an older output taken away, the ledger written: the rerun gives the same bytes."""
    # Slow, and of use only when the power fails.
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(os, "O_DIRECT", 0)
    straight = replace(job, output=job.output.with_name("straight"))
    run_job(straight)
    for moment in range(1000):
        here = replace(job, output=job.output.with_name(f"out{moment}"))
        older = replace(
            here, options="older", identity="older", files=[*job.files[:3], OutputFile("more/gone", [Literal(b"x")])]
        )
        if old:
            run_job(older, workers=1)
        calls, first = [0], []
        try:
            with monkeypatch.context() as patch:
                for name in ("rename", "unlink", "fsync", "rmdir", "mkdir"):
                    patch.setattr(os, name, dying(getattr(os, name), calls, moment))
                run_job(spied(here, first), workers=1, overwrite=True)
            break
        except Killed:
            if (here.output / "index.json").exists():  # the commit point, of the older output or of this one
                verify_job(here if (here.output / "part1" / "file5").exists() else older)
        repeated: list[str] = []
        published = is_complete(here.output) and (here.output / "part1" / "file5").exists()
        assert run_job(spied(here, repeated), overwrite=old and not published) != published
        assert len({*first} & {*repeated} - {"header"}) <= 1, moment
        assert content(here.output) == content(straight.output), moment
    assert moment > 40


def dying(call: Callable[..., Any], calls: list[int], moment: int) -> Callable[..., Any]:
    """The call, and Killed instead from the one numbered `moment` on."""

    def run(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] > moment:
            raise Killed
        return call(*arguments, **options)

    return run


def test_bad_input_leaves_nothing_where_no_file_is_whole(job: Job) -> None:
    def bad() -> None:
        raise WeightsError("data: layers.0.w has NaN")

    with pytest.raises(WeightsError, match=r"has NaN$"):
        run_job(spied(job, [], "layers.0.w", bad), workers=1)
    assert not job.output.exists()
    job.output.mkdir()
    with pytest.raises(WeightsError, match=r"has NaN$"):
        run_job(spied(job, [], "layers.0.w", bad), workers=1)
    assert not list(job.output.iterdir())


def in_files_of_their_own(job: Job, tmp_path: Path) -> Job:
    """The job with the tensor of each output file in a file of its own."""
    files = []
    for number, file in enumerate(job.files):
        header, copy = file.parts
        place = job.input / f"shard{number}"
        place.write_bytes((job.input / "data").read_bytes()[number * SIZE : (number + 1) * SIZE])
        entry = replace(copy.source.entry, file=place, begin=0)
        files.append(OutputFile(file.name, (header, Copy(Source(entry), 100, SIZE - 100))))
    return planned_again(replace(job, files=files))


def test_a_bad_shard_keeps_what_others_gave_and_its_successor_is_taken(job: Job, tmp_path: Path) -> None:
    job = in_files_of_their_own(job, tmp_path)

    def bad() -> None:
        raise WeightsError("shard3: layers.3.w has NaN")

    with pytest.raises(WeightsError, match=r"has NaN; 3 of 6 files are whole and kept"):
        run_job(spied(job, [], "layers.3.w", bad), workers=1)
    kept = {path: path.stat().st_ino for path in (job.output / WORK).rglob("file?")}
    (job.input / "shard3").write_bytes(bytes(SIZE))
    again, seen = planned_again(job), list[str]()
    assert again.identity != job.identity
    assert run_job(spied(again, seen), workers=1)
    assert [label for label in seen if label != "header"] == ["layers.3.w", "layers.4.w", "layers.5.w"]
    assert {(job.output / path.relative_to(job.output / WORK)).stat().st_ino for path in kept} == set(kept.values())
    verify_job(again)
    assert json.loads((job.output / MANIFEST).read_text())["identity"] == again.identity


def test_what_was_made_of_a_shard_that_is_replaced_is_made_again(job: Job, tmp_path: Path) -> None:
    job = in_files_of_their_own(job, tmp_path)

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        run_job(spied(job, [], "layers.4.w", kill), workers=1)
    (job.input / "shard1").write_bytes(bytes(SIZE))
    seen: list[str] = []
    again = planned_again(job)
    assert run_job(spied(again, seen), workers=1)
    assert [label for label in seen if label != "header"] == ["layers.1.w", "layers.4.w", "layers.5.w"]
    verify_job(again)


def test_a_shard_that_is_put_back_does_not_bring_back_what_its_successor_gave(job: Job, tmp_path: Path) -> None:
    job = in_files_of_their_own(job, tmp_path)
    file = job.input / "shard2"
    first, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        run_job(spied(job, [], "layers.2.w", kill), workers=1)
    file.write_bytes(bytes(SIZE))
    with pytest.raises(Killed):
        run_job(spied(planned_again(job), [], "layers.4.w", kill), workers=1)
    file.write_bytes(first)
    os.utime(file, ns=times)
    seen: list[str] = []
    assert run_job(spied(job, seen), workers=1)
    assert [label for label in seen if label != "header"] == ["layers.2.w", "layers.4.w", "layers.5.w"]
    verify_job(job)


@pytest.mark.parametrize("when", ["layers.1.w", "layers.4.w"])
def test_input_that_changes_during_a_run_is_not_published(when: str, job: Job, tmp_path: Path) -> None:
    """Before it is read, and when what was made of it is whole already; the time and size need not change."""
    job = in_files_of_their_own(job, tmp_path)
    file = job.input / "shard2"
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns

    def change() -> None:
        other = job.input / "other"
        other.write_bytes(bytes(SIZE))
        os.utime(other, ns=times)
        other.rename(file)

    with pytest.raises(WeightsError, match=r"shard2: changed while it was read; \d of 6 files are whole"):
        run_job(spied(job, [], when, change), workers=1)
    assert [path.name for path in job.output.iterdir()] == [WORK]
    again, seen = planned_again(job), list[str]()
    assert run_job(spied(again, seen), workers=1) and "layers.2.w" in seen and "layers.0.w" not in seen
    verify_job(again)


def test_a_small_file_that_changes_during_a_run_costs_no_large_one(job: Job) -> None:
    tokenizer = job.input / "tokenizer.json"
    tokenizer.write_text("{}")
    job = replace(job, marks={**job.marks, tokenizer: mark_of(tokenizer)})
    with pytest.raises(WeightsError, match=r"tokenizer.json: changed while it was read; 6 of 6 files"):
        run_job(spied(job, [], "layers.4.w", lambda: os.truncate(tokenizer, 1)), workers=1)
    seen: list[str] = []
    assert run_job(spied(planned_again(job), seen)) and not seen


def test_touched_times_are_forgiven_after_verify(job: Job) -> None:
    run_job(job)
    os.utime(job.input / "data", ns=(1, 1))
    again = planned_again(job)
    with pytest.raises(WeightsError, match="--verify tells whether it is the same"):
        run_job(again)
    verify_job(again)
    assert not run_job(again)
    data = bytearray((job.input / "data").read_bytes())
    data[-1] ^= 1
    (job.input / "data").write_bytes(data)
    changed = planned_again(job)
    with pytest.raises(WeightsError, match=r"layers.5.w\) differs"):
        verify_job(changed)
    with pytest.raises(WeightsError, match="made from other input"):
        run_job(changed)


def test_sums_are_compared_before_a_file_is_read_and_after_a_resume(job: Job, tmp_path: Path) -> None:
    job = in_files_of_their_own(job, tmp_path)
    sums = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in job.marks}
    assert run_job(replace(job, sums=Sums(sums), output=tmp_path / "good"), workers=3)
    sums[job.input / "shard2"] = "0" * 64
    seen: list[str] = []
    with pytest.raises(WeightsError, match=r"shard2: its SHA-256 is \w{64}, expected 0{64}; .*; 2 of 6 files"):
        run_job(spied(replace(job, sums=Sums(sums)), seen), workers=1)
    assert "layers.2.w" not in seen

    # Without sums all but the last become whole; with them the one that was made of the wrong file goes.
    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        run_job(spied(job, [], "layers.5.w", kill), workers=1)
    with pytest.raises(WeightsError, match=r"shard2: its SHA-256 .*; 5 of 6 files"):
        run_job(replace(job, sums=Sums(sums)), workers=1)


def test_a_job_for_a_plan_only(job: Job) -> None:
    hollow = replace(job, only_plan="in: has headers and no contents")
    for act in (run_job, verify_job):
        with pytest.raises(WeightsError, match="no contents"):
            act(hollow)
    assert not job.output.exists()


def test_a_full_disk_keeps_what_is_done(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = FileDestination.put, [0]

    def put(self: FileDestination, data: memoryview, offset: int) -> None:
        calls[0] += 1
        if calls[0] == 4:
            raise self._failed(OSError(errno.ENOSPC, "No space left on device"))
        real(self, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(FileDestination, "put", put)
        with pytest.raises(InterruptedJobError, match="No space left"):
            run_job(job, workers=1)
    seen: list[str] = []
    assert run_job(spied(job, seen), workers=1)
    assert len(seen) == 6


def test_a_failing_worker_stops_the_others_before_their_next_part(job: Job) -> None:
    met = threading.Barrier(2, timeout=20)
    seen: list[str] = []

    def fail() -> None:
        met.wait()
        raise WeightsError("bad")

    both = spied(job, seen, "layers.0.w", fail)
    second = [Spy(part, seen, met.wait) if part.label == "layers.1.w" else part for part in both.files[1].parts]
    with pytest.raises(WeightsError, match="bad"):
        run_job(replace(both, files=[both.files[0], OutputFile("b", second), *both.files[2:]]), workers=2)
    assert len(seen) <= 8


def test_two_processes_do_not_write_one_output(job: Job) -> None:
    errors: list[str] = []

    def second() -> None:
        with pytest.raises(WeightsError) as caught:
            run_job(job)
        errors.append(str(caught.value))

    run_job(spied(job, [], "layers.2.w", second), workers=1)
    assert len(errors) == 1 and "another process is writing it" in errors[0]


@pytest.mark.parametrize("where", ["in", "in/mcore", "."])
def test_refuses_an_output_in_or_around_the_input(where: str, job: Job, tmp_path: Path) -> None:
    before = content(tmp_path)
    with pytest.raises(WeightsError, match="must lie beside the input"):
        run_job(replace(job, output=tmp_path / where), overwrite=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_refuses_a_directory_of_something_else(overwrite: bool, job: Job) -> None:
    job.output.mkdir()
    (job.output / "thesis.txt").write_text("years of work")
    with pytest.raises(WeightsError, match="is not empty"):
        run_job(job, overwrite=overwrite)
    assert content(job.output) == {"thesis.txt": b"years of work"}


def test_a_manifest_names_no_file_outside_to_be_removed(job: Job, tmp_path: Path) -> None:
    run_job(job)
    (tmp_path / "thesis.txt").write_text("years of work")
    manifest = json.loads((job.output / MANIFEST).read_text())
    manifest["files"].insert(0, {"name": "../thesis.txt", "bytes": 1, "crc32": 1})
    (job.output / MANIFEST).write_text(json.dumps(manifest))
    run_job(job, overwrite=True)
    assert (tmp_path / "thesis.txt").exists()


def test_refuses_what_the_disk_cannot_hold(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipe.weights.workspace.free_bytes", lambda output: 1)
    with pytest.raises(WeightsError, match="1 are free"):
        run_job(job)
    assert not job.output.exists()


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "small", "manifest"])
def test_verify_finds_damage_and_names_it(damage: str, job: Job) -> None:
    run_job(job)
    verify_job(job)
    file = job.output / "part1" / "file3"
    if damage == "flip":
        raw = bytearray(file.read_bytes())
        raw[1234] ^= 4
        file.write_bytes(raw)
    elif damage == "cut":
        os.truncate(file, SIZE - 200)
    elif damage == "gone":
        file.unlink()
    elif damage == "small":
        (job.output / "config.json").write_text("{ }")
    else:
        manifest = json.loads((job.output / MANIFEST).read_text())
        manifest["files"][3]["crc32"] += 1
        (job.output / MANIFEST).write_text(json.dumps(manifest))
    message = {
        "flip": r"file3: byte 1234 \(layers.3.w\) differs",
        "cut": r"file3: byte 4800 \(layers.3.w\) differs",
        "gone": "file3: cannot be read",
        "small": "config.json: differs",
        "manifest": "manifest's checksum of part",
    }[damage]
    with pytest.raises(WeightsError, match=message):
        verify_job(job)


def test_verify_without_a_complete_output(job: Job) -> None:
    with pytest.raises(WeightsError, match="no complete output"):
        verify_job(job)
    run_job(job)
    (job.output / "index.json").unlink()
    with pytest.raises(WeightsError, match=r"is not complete, index.json is missing"):
        verify_job(job)


def test_layers_by_name() -> None:
    names = "model.layers.12.mlp.w", "decoder.layers.3.x", "layers.0.y", "model.norm.weight", "mtp_layers.1.z"
    assert [layer_of(name) for name in names] == [12, 3, 0, None, None]
