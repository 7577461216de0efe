# SPDX-License-Identifier: Apache-2.0
"""What the command lines of the weight tools share: options, the order of checks, messages, exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from recipe.text import printable
from recipe.weights.errors import WeightsError
from recipe.weights.hf_checkpoint import is_shard_name
from recipe.weights.job import Job, run_job, verify_job
from recipe.weights.progress import ProgressLine
from recipe.weights.report import disk_line, layer_table, summary
from recipe.weights.sums import Sums, hub_sums, read_sums
from recipe.weights.workspace import check_output, is_complete


@dataclass(frozen=True)
class Planned:
    """A job, with the number and the bytes of the tensors that it reads, and remarks to print."""

    job: Job
    tensors: int
    nbytes: int
    remarks: tuple[str, ...] = ()


EXIT_CODES = """\
exit code: 0 done, or done before; 2 it cannot be done (one line says why), and nothing of an older output is touched;
130 stopped by Ctrl-C. After a stop, a kill or a full disk the same command goes on from there.
"""


def add_job_arguments(parser: argparse.ArgumentParser, examples: str) -> None:
    """The options that every tool has, and what `--help` ends with: `examples`, and the exit codes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{examples}\n{EXIT_CODES}"
    workers = min(8, os.cpu_count() or 1)
    parser.add_argument("--workers", type=int, default=workers, metavar="N", help="threads (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, check the disk, and write nothing")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="make every byte anew and compare it with the output, after writing or when the output is there already",
    )
    parser.add_argument(
        "--sha256",
        type=Path,
        metavar="FILE",
        help="sums of the input's files, as sha256sum writes them: every shard must have its own (default: those that "
        "the hub's client left beside them)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an older output or an unfinished one")


def run_tool(options: argparse.Namespace, plan: Callable[[], Planned]) -> int:
    """Plan, check, and do what the options say; returns 0, or 2 after one line on stderr that says what is wrong."""
    try:
        return _run(options, plan())
    except WeightsError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _sums(job: Job, file: Path | None) -> Sums:
    """The sums of the job's input, those of its small files compared.

    Raises WeightsError for a file of sums that leaves out a file with tensors, and for a small file with another sum.
    """
    large = {path for path in job.marks if is_shard_name(path.name) or path.suffix == ".distcp"}
    if file is None:
        expected = hub_sums(job.marks)
    else:
        expected = read_sums(file, job.input)
        if left_out := sorted(large - expected.keys()):
            raise WeightsError(f"{file}: has no sum for {left_out[0].name} ({len(left_out)} files are without)")
    sums = Sums({path: digest for path, digest in expected.items() if path in job.marks})
    sums.check(path for path in job.marks if path not in large)
    return sums


def _run(options: argparse.Namespace, planned: Planned) -> int:
    job = planned.job
    if options.workers < 1:
        raise WeightsError(f"--workers {options.workers}: at least one is needed")
    job = replace(job, sums=_sums(job, options.sha256))
    print(summary(job, planned.tensors, planned.nbytes), *map(printable, planned.remarks), sep="\n")
    if len(job.sums):
        print(f"checked before it is read: {len(job.sums)} files, by their SHA-256", flush=True)
    if options.dry_run:
        print(*map(printable, layer_table(job)), sep="\n")
    only_verify = options.verify and is_complete(job.output) and not options.overwrite
    if not only_verify and check_output(job, options.overwrite):
        print(f"{job.output}: complete already; --verify checks it, --overwrite makes it anew", flush=True)
    elif not only_verify:
        print(disk_line(job), flush=True)
        if not options.dry_run:
            with ProgressLine("written", job.nbytes) as progress:
                run_job(job, workers=options.workers, overwrite=options.overwrite, progress=progress)
    if options.verify and not options.dry_run:
        with ProgressLine("verified", job.nbytes) as progress:
            verify_job(job, workers=options.workers, progress=progress)
        print(f"{job.output}: every byte is what the input gives", flush=True)
    return 0
