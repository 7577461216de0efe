# SPDX-License-Identifier: Apache-2.0
"""Runs with and without routing replay, seed by seed: how far rollout and actor agree, and what they learn.

    python benchmarks/replay.py [--seeds 1-10] [--steps 50] [--config configs/sim.toml] [--runs DIR] [--json]

For each seed `python -m recipe launch` twice, with `[train] routing_replay` "off" and "rollout", one run after the
other. A run that DIR holds finished is not made again. Prints of each its lowest Pearson correlation and largest |KL|
over the steps, the smallest share of the sampler's choices that the actor followed, the largest share of them that it
would not have made itself, and the validation score before and after. The exit code is 1 when a run fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from recipe.mismatch.steps import parse_steps  # noqa: E402
from recipe.runfile.schema import REPLAY_OFF, REPLAY_ROLLOUT  # noqa: E402

# Keys of a run's summary, and their column.
FIGURES = {
    "rollout_actor_pearson_min": "Pearson, lowest",
    "rollout_actor_kl_abs_max": "|KL|, largest",
    "routing_replayed_min": "followed",
    "routing_flips_max": "own choice differs",
    "val_score_first": "validation before",
    "val_score_last": "after",
}


def main() -> int:
    """Runs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=parse_steps, default=tuple(range(1, 11)), metavar="1-10")
    parser.add_argument("--steps", type=int, default=50, metavar="N")
    parser.add_argument("--config", type=Path, default=REPOSITORY / "configs" / "sim.toml", metavar="RUN.toml")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="keep the runs there (default: a temporary directory)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="replay-", dir="/tmp") as scratch:
        runs = options.runs or Path(scratch)
        runs.mkdir(parents=True, exist_ok=True)
        rows = [
            {"seed": seed, "replay": replay, **figures(runs, options.config, replay, seed, options.steps)}
            for seed in options.seeds
            for replay in (REPLAY_OFF, REPLAY_ROLLOUT)
        ]
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print("\n".join(table(rows)))
    return int(any(row["status"] != "finished" for row in rows))


def figures(runs: Path, config: Path, replay: str, seed: int, steps: int) -> dict[str, Any]:
    """The figures of one run, which is made unless it is there."""
    name = f"{replay}_seed{seed}"
    done = summary(runs / name)
    if (done.get("status"), done.get("steps")) != ("finished", steps):
        file = runs / f"{name}.toml"
        file.write_text(with_replay(config.read_text(encoding="utf-8"), replay), encoding="utf-8")
        command = [sys.executable, "-m", "recipe", "launch", str(file), "--name", name, "--fresh"]
        subprocess.run(
            [*command, "--steps", str(steps), "--seed", str(seed)],
            env={**os.environ, "RECIPE_RUNS": str(runs)},
            cwd=REPOSITORY,
            stdout=sys.stderr,
            check=False,
        )
        done = summary(runs / name)
    return {key: done.get(key) for key in ("status", "steps", *FIGURES)}


def with_replay(run_file: str, replay: str) -> str:
    """The text of a run file with this `[train] routing_replay`, in the place of its own if it has one."""
    lines = [line for line in run_file.splitlines() if line.partition("=")[0].strip() != "routing_replay"]
    place = lines.index("[train]") + 1
    return "\n".join([*lines[:place], f'routing_replay = "{replay}"', *lines[place:], ""])


def summary(run_dir: Path) -> dict[str, Any]:
    """What the run's report says; empty where there is none."""
    try:
        read: dict[str, Any] = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    except OSError:
        return {}
    return read


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A Markdown table."""
    head = ["seed", "replay", *FIGURES.values()]
    lines = [" | ".join(head), "|".join(["---"] * len(head))]
    for row in rows:
        values = [
            "" if row[key] is None else f"{row[key]:.1e}" if "kl" in key else f"{row[key]:.5f}" for key in FIGURES
        ]
        lines.append(" | ".join([str(row["seed"]), row["replay"], *values]))
    return [f"| {line} |" if "---" not in line else f"|{line}|" for line in lines]


if __name__ == "__main__":
    sys.exit(main())
