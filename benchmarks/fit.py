# SPDX-License-Identifier: Apache-2.0
"""What `plan --fit` prints, rehearsed: whether a step of it has room on the die.

    python benchmarks/fit.py [--model M ...] [--hardware H ...] [--out DIR] [--json]

For each pair of a model and a kind of NPU: the run file that `python -m recipe plan --fit` prints is written and read
again, preflight looks at it, and a die of the pipeline stage that is planned to be the fullest in training is rehearsed
whole, with the engine, the weight sync, and every pass and update of its steps, but without a checkpoint
(docs/REHEARSAL.md). The table has, of each phase, what was planned and what was rehearsed, in GiB, and what the fullest
phase leaves of the die beside what torch does not count. GPUs cannot be rehearsed.

Run files, results and logs stay in DIR: pairs that are done are not done again while the code is the same. MindSpeed
takes part where it is among the upstream sources. A pair takes one to five minutes on one core.

Exit code 1: preflight refuses a run file, a step does not fit, or it cannot be rehearsed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from recipe.clock import Clock  # noqa: E402
from recipe.files import write_atomically  # noqa: E402
from recipe.plan.fit import Fit, Wanted, fit  # noqa: E402
from recipe.plan.fit_page import run_file  # noqa: E402
from recipe.plan.memory import PHASES, Memory  # noqa: E402
from recipe.plan.page import TITLES  # noqa: E402
from recipe.preflight import refusals  # noqa: E402
from recipe.rehearse.comparison import compare_memory  # noqa: E402
from recipe.rehearse.conduct import Say, rehearse_stages  # noqa: E402
from recipe.rehearse.job import StageResult  # noqa: E402
from recipe.rehearse.page import oom_text  # noqa: E402
from recipe.rehearse.subject import Options, Rehearsed, rehearsed  # noqa: E402
from recipe.runfile.config import load  # noqa: E402
from recipe.runfile.errors import LaunchError  # noqa: E402
from recipe.runfile.paths import runs_dir, upstream_dir  # noqa: E402
from recipe.runfile.schema import GIB, HARDWARE, NPU  # noqa: E402

# A member of each family.
MODELS = ("qwen2_5_7b", "qwen3_8b", "llama3_1_8b", "moonlight_16b_a3b", "qwen3_30b_a3b")
NPUS = tuple(name for name, hardware in HARDWARE.items() if hardware.device == NPU)
IN_TRAINING = tuple(phase for phase in PHASES if phase != "rollout")


@dataclass
class Row:
    """A pair, and what came of it.

    Attributes:
        model, hardware: the pair.
        dies: of the cluster.
        stage: the pipeline stage that was rehearsed.
        planned, counted: GiB at most by phase, without what torch does not count.
        left: GiB of the die, beside that.
        wrong: why the run file cannot be run; empty where it can.
    """

    model: str
    hardware: str
    dies: int = 0
    stage: int = 0
    planned: dict[str, float] = field(default_factory=dict)
    counted: dict[str, float] = field(default_factory=dict)
    left: float = 0.0
    wrong: str = ""


def main() -> int:
    """Rehearse, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=MODELS, metavar="M",
                        help="names or directories, for plan --fit (default: a member of each family)")  # fmt: skip
    parser.add_argument("--hardware", nargs="+", default=NPUS, choices=NPUS, metavar="H",
                        help=f"of {', '.join(NPUS)} (default: all)")  # fmt: skip
    parser.add_argument("--max-response-tokens", type=int, default=Wanted.response_tokens, metavar="N",
                        help="longest answer (default: %(default)s)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=runs_dir() / "rehearsals" / "fit", metavar="DIR",
                        help="for run files, results and logs (default: runs/rehearsals/fit)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    directory, clock = options.out.absolute(), Clock(sys.stderr)
    directory.mkdir(parents=True, exist_ok=True)
    rows = []
    for model, hardware in itertools.product(options.model, options.hardware):
        wanted = Wanted(
            model=model, hardware=hardware, response_tokens=options.max_response_tokens, shared="/shared"
        )  # fmt: skip
        rows.append(rehearse(wanted, directory, clock.say))
    print(json.dumps({"rows": [asdict(row) for row in rows]}, indent=2) if options.json else table(rows))
    return int(any(row.wrong for row in rows))


def rehearse(wanted: Wanted, directory: Path, say: Say) -> Row:
    """The run file of a pair, written, read, checked and rehearsed."""
    row = Row(Path(wanted.model).name, wanted.hardware)
    name = f"{row.model}-{row.hardware}"
    say(name)
    try:
        found = fit(wanted)
        path = directory / f"{name}.toml"
        write_atomically(path, printed(found, wanted))
        config = load(path)
        refused = refusals(config)
        if refused:
            row.wrong = f"preflight: {refused[0].line}"
            return row
        row.dies, row.stage = found.found.run.layout.dies, fullest_stage(found.found.memory)
        run = rehearsed(config, Options(stages=(row.stage,), save=False), upstream_dir())
        results = rehearse_stages(run, directory / name, say)
    except LaunchError as error:
        row.wrong = str(error)
        return row
    fill(row, run, results)
    return row


def printed(found: Fit, wanted: Wanted) -> str:
    """What the command prints."""
    longer = "" if wanted.response_tokens == Wanted.response_tokens else (
        f" --max-response-tokens {wanted.response_tokens}"
    )  # fmt: skip
    return run_file(found, f"python -m recipe plan --fit {wanted.model} --hardware {wanted.hardware}{longer}")


def fullest_stage(needed: Memory) -> int:
    """The stage with the die that most is planned for in training; the engines of all stages are alike."""
    return max(needed.dies, key=lambda die: max(die.total(phase) for phase in IN_TRAINING if phase in die.phases)).stage


def fill(row: Row, run: Rehearsed, results: Sequence[StageResult]) -> None:
    """Put what was counted, what was planned, and what did not fit into the row."""
    (result,) = results
    row.planned = {phase: pair.planned / GIB for phase, pair in compare_memory(run, results)[result.stage].items()}
    row.counted = {phase: result.phases[phase].peak_bytes / GIB for phase in PHASES if phase in result.phases}
    most = max(phase.peak_bytes for phase in result.phases.values())
    row.left = (run.config.hbm_bytes_per_die - run.outside_bytes - most) / GIB
    if result.oom is not None:
        row.wrong = oom_text(result, run.outside_bytes)


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, and below it what is wrong with any of them."""
    phases = [phase for phase in PHASES if any(phase in row.counted for row in rows)]
    lines = [
        f"| model | `hardware` | dies | stage | {' | '.join(TITLES[phase] for phase in phases)} | left |",
        f"|---|---|{'---:|' * (len(phases) + 3)}",
    ]
    for row in rows:
        cells = [f"`{row.model}`", f"`{row.hardware}`", f"{row.dies}", f"{row.stage}"]
        cells += [cell(row, phase) for phase in phases]
        cells.append(f"{row.left:.1f}" if row.counted else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *(f"{row.model}, {row.hardware}: {row.wrong}" for row in rows if row.wrong)])


def cell(row: Row, phase: str) -> str:
    """What was planned and what was counted; the former is missing where a phase was not come to the end of."""
    if phase not in row.counted:
        return ""
    planned: Any = row.planned.get(phase)
    return f"{'' if planned is None else f'{planned:.1f}, '}{row.counted[phase]:.1f}"


if __name__ == "__main__":
    sys.exit(main())
