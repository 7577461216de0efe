# SPDX-License-Identifier: Apache-2.0
"""Stands in for the process of a stage: the command line of `recipe.rehearse.stage_process`, with figures made up.

What it does follows from the job's seed: 1 succeeds, 2 says an error and fails, 3 dies with a last line in
its log, 4 waits to be ended. Each leaves a file `ran.STAGE` with its process number beside the job.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from recipe.rehearse.job import Job, Phase, StageResult

SUCCEED, FAIL, DIE, WAIT = range(1, 5)


def main() -> int:
    job_file, result_file = map(Path, sys.argv[1:3])
    job = Job.read(job_file)
    ran = job_file.parent / f"ran.{job.stage}"
    ran.write_text(str(os.getpid()))
    with os.fdopen(int(sys.argv[3]), "w") as out:
        if job.seed == FAIL:
            print(json.dumps({"phase": "update", "error": "HollowRead: somebody reads"}), file=out)
            return 1
        if job.seed == DIE:
            print("the last line\n", file=sys.stderr)
            return 1
        if job.seed == WAIT:
            time.sleep(100)
        print(json.dumps({"phase": "log_prob", "rate": 1500.0, "rss": 2**30}), file=out)
        print(json.dumps({"phase": "log_prob", "peak": 2**31, "operators": 12345, "seconds": 2.5}), file=out)
        phase = Phase(2**31, 0, 0, {"activations": 2**31}, [], 12345, 2.5, 1.0)
        StageResult(job.key, job.stage, job.rank, {"log_prob": phase}, 3.0, 2**30).write(result_file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
