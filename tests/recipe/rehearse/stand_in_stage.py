# SPDX-License-Identifier: Apache-2.0
"""Stands in for `recipe.rehearse.stage_process`: the same requests and the same progress, with figures made up.

What a stage comes to follows from its job's seed: 1 succeeds, 2 says an error and fails, 3 dies with a last line in its
log, 4 waits to be ended, 5 ends the process that forks. Each leaves a file `ran.STAGE` with its process number beside
the job.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from recipe.rehearse.job import Job, Phase, StageResult
from recipe.signals import die_with_parent

SUCCEED, FAIL, DIE, WAIT, END_ALL = range(1, 6)


def stage(request: dict[str, Any], out: TextIO) -> int:
    job = Job.read(Path(request["job"]))
    assert request["environment"]["TMPDIR"] == os.environ["TMPDIR"]
    if job.only_describe:
        Path(job.described[0]).write_text("[]")
        StageResult(job.key, job.stage, job.rank, {}, 0.5, 0).write(Path(request["result"]))
        return 0
    (Path(request["job"]).parent / f"ran.{job.stage}").write_text(str(os.getpid()))

    def tell(**values: Any) -> None:
        print(json.dumps({"stage": job.stage, "phase": "ref", **values}), file=out, flush=True)

    if job.seed == FAIL:
        tell(error="HollowRead: somebody reads")
        return 1
    if job.seed == DIE:
        Path(request["log"]).write_text("first\nthe last line\n\n")
        return 1
    if job.seed == WAIT:
        time.sleep(100)
    tell(rate=1500.0, rss=2**30)
    tell(peak=2**31, operators=12345, seconds=2.5)
    phase = Phase(2**31, 0, 0, {"activations": 2**31}, [], 12345, 2.5, 1.0)
    StageResult(job.key, job.stage, job.rank, {"ref": phase}, 3.0, 2**30).write(Path(request["result"]))
    return 0


def main() -> int:
    running = {}
    with os.fdopen(int(sys.argv[1]), "w") as out:
        for line in sys.stdin:
            request = json.loads(line)
            job = Job.read(Path(request["job"]))
            if job.seed == END_ALL:
                print("no such module", file=sys.stderr)
                return 1
            child = os.fork()
            if not child:
                die_with_parent()
                os._exit(stage(request, out))
            running[child] = request["stage"]
            if job.seed != WAIT or job.only_describe:
                ended, status = os.wait()
                print(json.dumps({"stage": running.pop(ended), "ended": status}), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
