# SPDX-License-Identifier: Apache-2.0
"""The program of a grading process: reads lines of JSON from its standard input and answers on its standard output.

The first line is the configuration, ``{"name": verifier, "mix": weights or null}``. Each later one is a list of samples
``[response, ground truth]``, with the problem as a third item where no work may be copied from it; it is answered by
one line ``[score, verdict, format]`` for each sample. The process ends with its input. It is run by file and without
the environment's packages: grading needs the standard library only.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import IO

#: Address space of a grading process, in bytes: far above what a batch of texts needs.
MEMORY = 2 << 30


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answers every request until the end of the input. Each answer is sent at once: a death loses none before it."""
    from recipe.reward.verifiers import get_verifier, verify

    verifier = get_verifier(**json.loads(requests.readline()))
    for line in requests:
        for response, truth, *problem in json.loads(line):
            result = verify(verifier, response, truth, None, *problem)
            answers.write(json.dumps([result.score, result.verdict.value, result.format]) + "\n")
            answers.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    serve(sys.stdin, sys.stdout)
