#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast weights are prepared and in how much memory, beside `cp` of the same bytes on the same disk.

Makes a DeepSeek-V3 of a few GB with matrices of the published sizes (fewer heads, experts and layers), then runs, in
turn and --rounds times: cp, the FP8 cast, the published algorithm in plain torch, FP8 -> torch_dist, BF16 ->
torch_dist, cp of a legacy checkpoint, FP8 -> legacy, and, with the input dropped from the page cache, cp and the cast
again. Every run is the command a person would type, from the start of its process to the last fsync, with --workers
workers.

The ratios are throughputs in bytes written per second, divided by that of cp in the same round; the median of the
rounds is printed. Higher is better; 1 is as fast as cp.

  cast_vs_cp_warm        FP8 -> BF16, input in the page cache; cp of the BF16 checkpoint, likewise, and fsync
  cast_vs_cp_cold        the same with the input of both dropped from the page cache (posix_fadvise DONTNEED) before
  cast_vs_reference      the cast beside the published algorithm in plain torch (benchmarks/fp8_reference.py), which is
                         run on one shard only, without fsync, with torch's threads
  fp8_to_mcore_vs_cp     FP8 -> torch_dist, beside cp of the BF16 checkpoint (as many bytes)
  bf16_to_mcore_vs_cp    BF16 -> torch_dist, likewise
  legacy_vs_cp           FP8 -> legacy (TP2 PP2 EP2, experts dealt and grouped), beside cp of what it writes
  cast_rss_mib, mcore_rss_mib, legacy_rss_mib
                         the largest resident set of any run, of the tool's process tree (its workers are threads of one
                         process, which the run makes sure of); MiB. Pages of files that are mapped count.

A disk that is busy with something else, or a file system in memory, makes the figures worthless: look at the spread
in the table that is printed without --json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
# Hidden size and width of an expert: as published, or of a model small enough to try this program with.
PUBLISHED, SMALL = (7168, 2048), (1024, 512)
HEADS, EXPERTS, VOCABULARY = 32, 8, 8192
LEGACY = (
    "--format", "legacy", "--target-tensor-parallel-size", "2", "--target-pipeline-parallel-size", "2",
    "--target-expert-parallel-size", "2", "--moe-grouped-gemm", "--moe-tp-extend-ep",
)  # fmt: skip


@dataclass
class Timings:
    """The runs of one kind: GB/s each, and the largest resident set in MiB."""

    speeds: list[float] = field(default_factory=list)
    rss: float = 0.0


def main() -> None:
    """Measures and prints the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON with the figures above and nothing else")
    parser.add_argument("--size", type=float, default=2.5, help="GB of the model in BF16 (default 2.5)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind (default 5)")
    parser.add_argument("--workers", type=int, default=2, help="workers of each tool (default 2)")
    parser.add_argument(
        "--directory", type=Path, help="where to work, on a disk with 7 times --size free (default: the temporary one)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="weights-benchmark-", dir=options.directory) as scratch:
        bench = Benchmark(Path(scratch), options.workers)
        bench.prepare(options.size)
        for number in range(options.rounds):
            bench.round()
            if not options.json:
                print(f"round {number + 1} of {options.rounds} done", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps(bench.figures()))
    else:
        print(*bench.table(), sep="\n")


class Benchmark:
    """The directories of the runs and what was measured in them."""

    def __init__(self, scratch: Path, workers: int) -> None:
        self.workers = workers
        self.fp8, self.bf16, self.ranks, self.out = (scratch / name for name in ("fp8", "bf16", "ranks", "out"))
        self.series: dict[str, Timings] = {}

    def prepare(self, size: float) -> None:
        """Make the model and one output of each kind that is input of another run; also warms every tool up."""
        hidden, width = PUBLISHED if size >= 1.5 else SMALL
        base, layer = _bf16_bytes(hidden, width)
        layers = max(1, round((size * 1e9 - base) / layer))
        _python(
            str(SCRIPTS / "make_tiny_model.py"), "--fp8", "--out", str(self.fp8), "--hidden-size", str(hidden),
            "--layers", str(1 + layers), "--dense-layers", "1", "--experts", str(EXPERTS), "--heads", str(HEADS),
            "--intermediate-size", str(3 * width), "--moe-intermediate-size", str(width),
            "--vocabulary", str(VOCABULARY), "--shard-bytes", str(int(size * 160e6)),
        )  # fmt: skip
        self.split = ",".join(map(str, (1, layers)))
        _python(*self._cast(self.bf16))
        _python(*self._mcore(self.fp8, self.ranks, *LEGACY, "--num-layer-list", self.split))
        self.shard = next(file.name for file in sorted(self.fp8.glob("*.safetensors")) if _has_its_scales(file))

    def round(self) -> None:
        """Every kind of run once."""
        self._copy("cp", self.bf16)
        self._tool("cast", self.fp8, self._cast(self.out))
        self._reference()
        self._tool("fp8 -> torch_dist", self.fp8, self._mcore(self.fp8, self.out))
        self._tool("bf16 -> torch_dist", self.bf16, self._mcore(self.bf16, self.out))
        self._copy("cp, legacy", self.ranks)
        legacy = self._mcore(self.fp8, self.out, *LEGACY, "--num-layer-list", self.split)
        self._tool("fp8 -> legacy", self.fp8, legacy)
        self._copy("cp, cold", self.bf16, cold=True)
        self._tool("cast, cold", self.fp8, self._cast(self.out), cold=True)

    def figures(self) -> dict[str, float]:
        """The figures of the help text."""
        return {
            "cast_vs_cp_warm": self._ratio("cast", "cp"),
            "cast_vs_cp_cold": self._ratio("cast, cold", "cp, cold"),
            "cast_vs_reference": self._ratio("cast", "reference"),
            "fp8_to_mcore_vs_cp": self._ratio("fp8 -> torch_dist", "cp"),
            "bf16_to_mcore_vs_cp": self._ratio("bf16 -> torch_dist", "cp"),
            "legacy_vs_cp": self._ratio("fp8 -> legacy", "cp, legacy"),
            "cast_rss_mib": self._rss("cast", "cast, cold"),
            "mcore_rss_mib": self._rss("fp8 -> torch_dist", "bf16 -> torch_dist"),
            "legacy_rss_mib": self._rss("fp8 -> legacy"),
        }

    def table(self) -> Iterator[str]:
        """A line for every kind of run and for every figure."""
        yield f"{'GB/s written':22} {'median':>8} {'least':>8} {'most':>8} {'MiB':>6}"
        for name, series in self.series.items():
            speeds = series.speeds
            middle = statistics.median(speeds)
            yield f"{name:22} {middle:8.2f} {min(speeds):8.2f} {max(speeds):8.2f} {series.rss or '':>6}"
        yield ""
        for name, value in self.figures().items():
            yield f"{name:22} {value}"

    def _cast(self, out: Path) -> list[str]:
        script = str(SCRIPTS / "fp8_cast_bf16.py")
        return [script, "--input-fp8-hf-path", str(self.fp8), "--output-bf16-hf-path", str(out), *self._workers()]

    def _mcore(self, source: Path, out: Path, *more: str) -> list[str]:
        script = str(SCRIPTS / "convert_hf_to_mcore.py")
        return [script, "--load-dir", str(source), "--save-dir", str(out), *more, *self._workers()]

    def _workers(self) -> tuple[str, str]:
        return "--workers", str(self.workers)

    def _copy(self, name: str, source: Path, cold: bool = False) -> None:
        def copy() -> float:
            subprocess.run(["cp", "-r", "--reflink=never", source, self.out], check=True)
            for file in _files(self.out):
                _with_handle(file, os.fsync)
            return 0.0

        self._timed(name, source, copy, cold)

    def _tool(self, name: str, source: Path, command: list[str], cold: bool = False) -> None:
        self._timed(name, source, lambda: _python(*command), cold)

    def _reference(self) -> None:
        script = str(ROOT / "benchmarks" / "fp8_reference.py")
        self._timed("reference", self.fp8, lambda: _python(script, str(self.fp8), str(self.out), self.shard))

    def _timed(self, name: str, source: Path, run: Callable[[], float], cold: bool = False) -> None:
        """Run once; `run` makes self.out and returns MiB."""
        # What the run before left to write is not this one's.
        os.sync()
        for file in _files(source):
            _with_handle(file, _drop if cold else _warm)
        start = time.perf_counter()
        rss = run()
        seconds = time.perf_counter() - start
        series = self.series.setdefault(name, Timings())
        series.speeds.append(sum(file.stat().st_size for file in _files(self.out)) / seconds / 1e9)
        series.rss = max(series.rss, round(rss))
        shutil.rmtree(self.out)

    def _ratio(self, ours: str, theirs: str) -> float:
        pairs = zip(self.series[ours].speeds, self.series[theirs].speeds, strict=True)
        return round(statistics.median(our_speed / their_speed for our_speed, their_speed in pairs), 2)

    def _rss(self, *names: str) -> float:
        return max(self.series[name].rss for name in names)


def _bf16_bytes(hidden: int, width: int) -> tuple[float, float]:
    """Bytes of the model's embeddings and dense layer, and of each mixture layer."""
    # Low ranks of 192 and 128, heads of 128 + 64 for queries and keys and 128 for values.
    attention = HEADS * (192 * 192 + 256 * 128) + hidden * (HEADS * 128 + 384)
    dense = attention + 3 * hidden * 3 * width
    return 2 * (dense + 2 * VOCABULARY * hidden), 2 * (attention + 3 * hidden * width * (EXPERTS + 1))


def _has_its_scales(file: Path) -> bool:
    """Whether the file has FP8 tensors, and the scales of all of them, as the reference wants it."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    cast = [name for name, entry in header.items() if entry.get("dtype") == "F8_E4M3"]
    return bool(cast) and all(name + "_scale_inv" in header for name in cast)


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def _with_handle(file: Path, do: Callable[[int], object]) -> None:
    handle = os.open(file, os.O_RDONLY)
    try:
        do(handle)
    finally:
        os.close(handle)


def _drop(handle: int) -> None:
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def _warm(handle: int) -> None:
    while os.read(handle, 16 * 2**20):
        pass


def _python(*command: str) -> float:
    """Run a script of ours; returns the largest resident set of its process, in MiB. Exits when it fails."""
    with tempfile.TemporaryFile() as output, subprocess.Popen(
        [sys.executable, *command], stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
    ) as process:  # fmt: skip
        family: set[str] = set()
        watch = threading.Thread(target=_watch, args=(process, family))
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        watch.join()
        if process.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{output.read().decode()}")
    if family:
        sys.exit(f"{command[0]} has child processes ({', '.join(family)}), whose memory is not measured here")
    return usage.ru_maxrss / 1024


def _watch(process: subprocess.Popen[bytes], family: set[str]) -> None:
    """Collects the children of a process, every tenth of a second."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.returncode is None:
        try:
            family.update(listed.read_text().split())
        except OSError:
            return
        time.sleep(0.1)


if __name__ == "__main__":
    main()
