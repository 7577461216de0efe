# SPDX-License-Identifier: Apache-2.0
"""What it costs to turn 40,000 problems into Parquet: seconds and memory of the whole command, and equal bytes.

Three fresh processes convert the same generated file, and the fastest counts. Beside them, so that the figure means
something on other machines: a process that reads the same JSON whole and lets pyarrow write it as it stands.

    python benchmarks/data.py [--problems 40000] [--json]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from recipe.data.samples import sample_problems  # noqa: E402

SECONDS, MEGABYTES = 3.0, 400
PLAIN = """
import json, sys
import pyarrow, pyarrow.parquet
with open(sys.argv[1], encoding="utf-8") as file:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(json.load(file)), sys.argv[2])
"""


def write_problems(path: Path, count: int) -> None:
    """A JSON list with solutions as long as those of competition problems; every tenth goes beyond Latin-1."""
    records = sample_problems(count, 1)
    for place, record in enumerate(records):
        record["solution"] = "\n".join([record["solution"]] * 24) + ("…" if place % 10 == 0 else "")
    path.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")


def measure(*command: str) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and greatest resident megabytes (2**20 bytes) of a process."""
    # As a person runs it: modules are compiled once and kept.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{Path(command[0]).name} failed with exit code {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / (1 << 10)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=40_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        source = directory / "problems.json"
        # In a process of its own: the greatest memory of a process counts for those that it starts, too.
        generate = multiprocessing.get_context("spawn").Process(target=write_problems, args=(source, options.problems))
        generate.start()
        generate.join()
        script = str(REPOSITORY / "scripts" / "json_to_parquet.py")
        runs = [measure(script, "--json_path", str(source), "--output_dir", str(directory / out)) for out in "abc"]
        plain, plain_processor, plain_memory = measure("-c", PLAIN, str(source), str(directory / "plain.parquet"))
        same = all(
            len({(directory / out / file).read_bytes() for out in "abc"}) == 1
            for file in ("train.parquet", "test.parquet")
        )
        figures = {
            "problems": options.problems,
            "input_megabytes": round(source.stat().st_size / (1 << 20), 1),
            "seconds": round(min(run[0] for run in runs), 3),
            "processor_seconds": round(min(run[1] for run in runs), 3),
            "megabytes_rss": round(max(run[2] for run in runs), 1),
            "identical": same,
            "plain_seconds": round(plain, 3),
            "plain_processor_seconds": round(plain_processor, 3),
            "plain_megabytes_rss": round(plain_memory, 1),
        }
    if options.json:
        print(json.dumps(figures))
    else:
        print(f"{figures['problems']} problems, {figures['input_megabytes']} MiB of JSON")
        print(f"json_to_parquet.py   {figures['seconds']:7.2f} s  (bar {SECONDS:.0f} s for 40,000)")
        print(f"  processor          {figures['processor_seconds']:7.2f} s")
        print(f"  resident memory    {figures['megabytes_rss']:7.0f} MiB  (bar {MEGABYTES} MB for 40,000)")
        print(f"  three runs         {'byte for byte the same' if same else 'DIFFERENT FILES'}")
        print(f"read whole and write {figures['plain_seconds']:7.2f} s")
        print(f"  processor          {figures['plain_processor_seconds']:7.2f} s")
        print(f"  resident memory    {figures['plain_megabytes_rss']:7.0f} MiB")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
