# SPDX-License-Identifier: Apache-2.0
"""What the real math-verify says as tier 3, to answers it can read, cannot read, and should never get to read.

Needs the packages of requirements-tier3.txt, best in an environment of their own:

    python -m venv tier3 && tier3/bin/pip install -r requirements-tier3.txt
    tier3/bin/python benchmarks/tier3.py [--json]

Prints for each answer the verdict without and with tier 3, how many processes it cost, and milliseconds. The exit code
is 1 when a verdict is not the one that is written down here.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from recipe.reward.grade import grade_answer  # noqa: E402
from recipe.reward.processes.tier3 import Tier3, require  # noqa: E402

_MATRIX = "\\begin{{{}}}{}&2\\\\3&4\\end{{{}}}"
#: (answer, truth): the verdicts that are right. The last part would hang or fill a process without limits.
PAIRS: dict[tuple[str, str], tuple[str, ...]] = {
    ("\\sin(x)", "\\sin x"): ("correct",),
    ("\\ln 4", "2\\ln 2"): ("correct",),
    ("\\sqrt{\\sin^2 x}", "|\\sin x|"): ("correct",),
    ("x>3", "3<x"): ("correct",),
    ("x\\neq 3", "x \\ne 3"): ("correct",),
    ("\\emptyset", "\\{\\}"): ("correct",),
    ("f(x)=\\sin x", "\\sin x"): ("correct",),
    # Tier 2 settles it; whether math-verify alone reads it depends on the parser that is installed with it.
    (_MATRIX.format("bmatrix", "1.0", "bmatrix"), _MATRIX.format("pmatrix", "1", "pmatrix")): (
        "correct",
        "unparseable",
    ),
    ("\\cos x", "\\sin x"): ("wrong",),
    ("x \\le 3", "x < 3"): ("wrong",),
    ("4!", "n!"): ("wrong",),
    ("1.098612", "\\ln 3"): ("wrong",),
    ("\\sin x, \\cos x", "\\sin x"): ("wrong",),
    ("\\sin x \\text{ or } \\cos x", "\\sin x"): ("wrong",),
    ("x>", "x>3"): ("unparseable", "wrong"),
    ("5!", "120"): ("unparseable",),
    ("\\sin(\\pi/2)", "1"): ("unparseable",),
    ("\\int_1^2 dx/x", "\\ln 2"): ("unparseable",),
    ("__import__('os').system('touch {file}')+\\sin x", "\\sin x+1"): ("unparseable", "wrong"),
    ("9^{9^{9^{9}}}!", "n!"): ("timeout", "error"),
    ("10^{10^{10}}\\sin x", "\\sin x"): ("timeout", "error"),
    ("(\\sin x+\\cos y+\\tan z)^{400}", "\\sin^{400} x+1"): ("timeout", "error"),
    ("\\sin(" * 40 + "x" + ")" * 40, "\\sin x"): ("timeout", "error", "wrong"),
}


def main() -> int:
    """Asks about every pair on its own and prints what came back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    as_json = parser.parse_args().json
    try:
        require("math_verify")
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    rows: list[dict[str, Any]] = []
    tier3, wrong = Tier3(), 0
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "written"
        tier3.ask([("\\sin x", "\\cos x")])  # what the start costs is not an answer's
        for (text, truth), expected in PAIRS.items():
            answer = text.replace("{file}", str(file))
            start = time.perf_counter()
            opinion = tier3.ask([(answer, truth)])[answer, truth]
            milliseconds = (time.perf_counter() - start) * 1e3
            wrong += opinion.verdict.value not in expected
            rows.append(
                {"answer": text, "truth": truth, "tiers_1_2": grade_answer(answer, truth).value,
                 "tier_3": opinion.verdict.value, "lost": opinion.lost, "ms": round(milliseconds, 1)}
            )  # fmt: skip
        wrote = file.exists()
        tier3.close()
    result: dict[str, Any] = {"rows": rows, "unexpected": wrong, "code_was_run": wrote}
    if as_json:
        print(json.dumps(result))
    else:
        for row in rows:
            print(f"{row['tiers_1_2']:12} {row['tier_3']:12} {row['lost']:2} {row['ms']:8.1f} ms  {row['answer'][:50]}")
        print(f"verdicts other than expected: {wrong}; code of an answer was {'RUN' if wrote else 'not run'}")
    return int(wrong > 0 or wrote)


if __name__ == "__main__":
    sys.exit(main())
