# SPDX-License-Identifier: Apache-2.0
"""What graph sizes, spreading and re-balancing save of a rollout's decode, by lengths of answers.

    python benchmarks/rollout.py [--engines 128] [--sequences 64] [--samples 16] [--lengths FILE] [--real 2 4] [--json]

The long answers rule a rollout: every engine of a domain decodes the graph that the fullest one needs, to the end of
the last answer. This replays the engines' steps (benchmarks/rollout_steps.py: the scheduler's rules, and the planner
that the rollout itself uses) for answers of given lengths, without a model, and counts them in five modes:

    today       one graph, for a full batch
    sizes       several graphs: the domain takes the smallest that holds its fullest engine
    spread      sizes, and the samples of a prompt go to different engines
    balanced    sizes, and unfinished requests move when a smaller graph would do for all
    all         sizes, spread and balanced

`padded_tokens` are decode steps times the padded batch of all engines; `ratio` is that of `all` to that of `today`.
`prefilled_again_tokens` is what moved requests brought with them, whose prefill is no part of `padded_tokens`: while an
engine prefills, nobody runs a graph, and all wait. Those steps, the ones at the start included, are `mixed_steps`, and
`mixed_padded_tokens` their longest engine's tokens times the engines; `ratio_with_mixed` adds them to both sides.
Of `idle_share`, an engine step counts whose engine has no request; `padding_share` is what of the padded tokens is no
token of an answer.

It knows no time. A graph for half the sequences takes more than half as long, so that tokens saved are no seconds
saved. It knows no KV cache either: all fits, and nothing is preempted.

Lengths, each answer's of its own prompt:
    tail        log-normal, median 4,000, 99th percentile 32,000, cut at 32,768
    published   mean 1,385, cut at 2,048, as in the step published for 256 dies; of its shape nothing is known, and
                it is taken to be log-normal with a spread (of the logarithm) of 0.6
    --lengths   a file: for each prompt a line, of as many numbers as samples; its largest number is the most
How much the answers to one prompt resemble each other decides what spreading brings, and is not published. The
logarithms of two answers' lengths have the correlation --correlation, an assumption; at 0, spreading brings nothing but
luck.

With --real 2 4, that many real engines (vLLM-Ascend, each a process on a simulated die) run small rollouts, with and
without moves: their steps are compared with the replay's, and the answers of both with one another. That needs the
environment that scripts/setup.sh makes, and some minutes.

With --json one object: of the tail, padded_tokens_today, padded_tokens_all, ratio, moved_requests,
prefilled_again_tokens, lost_requests, duplicated_requests (of `all`), and under "distributions" the same of each, with
every mode; under "real" what --real compared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.rollout_steps import Answer, Counts, Rules, replay  # noqa: E402
from recipe.runfile.paths import upstream_dir  # noqa: E402
from verl_patches.workers.rollout.vllm_rollout.balance.spread import engine_rows  # noqa: E402
from verl_patches.workers.rollout.vllm_rollout.engine_args import graph_sizes  # noqa: E402

# Of the processes that are real engines.
ENVIRONMENT = {"GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1", "TORCHDYNAMO_DISABLE": "1"}
NORMAL = statistics.NormalDist()
PUBLISHED_SPREAD, PUBLISHED_MEAN, PUBLISHED_MOST = 0.6, 1385, 2048
TAIL_MEDIAN, TAIL_P99, TAIL_MOST = 4000, 32_000, 32_768
# Mode: several graphs, spread, balanced.
MODES = {
    "today": (False, False, False),
    "sizes": (True, False, False),
    "spread": (True, True, False),
    "balanced": (True, False, True),
    "all": (True, True, True),
}


@dataclass(frozen=True)
class Lengths:
    """Lengths of answers, prompt by prompt, and the most that one may have."""

    rows: list[list[int]]
    most: int


def log_normal(median: float, spread: float, most: int, correlation: float) -> Callable[[int, int, int], Lengths]:
    """A maker of lengths for `prompts` of `samples` each, from a seed; `spread` is of the logarithm."""

    def make(prompts: int, samples: int, seed: int) -> Lengths:
        drawn, rows = random.Random(seed), []
        for _ in range(prompts):
            shared = drawn.gauss()
            deviates = (
                math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * drawn.gauss() for _ in range(samples)
            )
            rows.append([max(1, min(most, round(median * math.exp(spread * one)))) for one in deviates])
        return Lengths(rows, most)

    return make


def median_for(mean: float, spread: float, most: int) -> float:
    """The median of the log-normal that, cut at `most`, has this mean."""

    def mean_of(median: float) -> float:
        # Of the part below the cut, and of the part that is cut.
        cut = (math.log(most / median)) / spread
        below = median * math.exp(spread**2 / 2) * NORMAL.cdf(cut - spread)
        return below + most * (1 - NORMAL.cdf(cut))

    low, high = 1.0, 100.0 * most
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if mean_of(middle) < mean else (low, middle)
    return low


def distributions(correlation: float) -> dict[str, Callable[[int, int, int], Lengths]]:
    tail_spread = math.log(TAIL_P99 / TAIL_MEDIAN) / NORMAL.inv_cdf(0.99)
    published = median_for(PUBLISHED_MEAN, PUBLISHED_SPREAD, PUBLISHED_MOST)
    return {
        "tail": log_normal(TAIL_MEDIAN, tail_spread, TAIL_MOST, correlation),
        "published": log_normal(published, PUBLISHED_SPREAD, PUBLISHED_MOST, correlation),
    }


def from_file(path: Path) -> Lengths:
    """Of a file of lines of numbers.

    Raises:
        SystemExit: a line has another number of them than the first, or one that is no length.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.replace(",", " ").split()
        if not all(word.isascii() and word.isdigit() and int(word) for word in words):
            raise SystemExit(f"{path}:{number}: lengths are whole numbers from 1 on, found {line!r}")
        if rows and len(words) != len(rows[0]):
            raise SystemExit(f"{path}:{number}: {len(words)} lengths, and {len(rows[0])} in the lines before")
        rows.append([int(word) for word in words])
    if not rows or not rows[0]:
        raise SystemExit(f"{path}: no lengths")
    return Lengths(rows, max(map(max, rows)))


def counted(
    lengths: Lengths, engines: int, sizes: tuple[int, ...], rules: dict[str, Any], prompt: int
) -> dict[str, Any]:
    """What every mode takes, and the keys of the report.

    Raises:
        SystemExit: the answers are not as many for each engine.
    """
    flat = [length for row in lengths.rows for length in row]
    if len(flat) % engines:
        raise SystemExit(f"{len(flat)} answers cannot be dealt to {engines} engines alike")
    answers = [Answer(number, prompt, length) for number, length in enumerate(flat)]
    modes: dict[str, dict[str, Any]] = {}
    for mode, (several, spread, balanced) in MODES.items():
        rows = engine_rows(len(answers), engines, spread)
        asked = Rules(sizes if several else sizes[-1:], longest=lengths.most, balanced=balanced, **rules)
        modes[mode] = row_of(replay([[answers[row] for row in held] for held in rows], asked), len(answers))
    today, everything = modes["today"], modes["all"]
    return {
        "padded_tokens_today": today["padded_tokens"],
        "padded_tokens_all": everything["padded_tokens"],
        "ratio": everything["padded_tokens"] / today["padded_tokens"],
        "ratio_with_mixed": with_mixed(everything) / with_mixed(today),
        **{key: everything[key] for key in LOSSES},
        "answers": len(flat),
        "mean_length": sum(flat) / len(flat),
        "modes": modes,
    }


LOSSES = ("moved_requests", "prefilled_again_tokens", "lost_requests", "duplicated_requests")


def row_of(counts: Counts, answers: int) -> dict[str, Any]:
    return {
        "padded_tokens": counts.padded_tokens,
        "decode_steps": {str(size): steps for size, steps in sorted(counts.decode_steps.items())},
        "mixed_steps": counts.mixed_steps,
        "mixed_padded_tokens": counts.mixed_padded,
        "idle_share": counts.idle / counts.engine_steps,
        "padding_share": 1 - counts.decoded / (counts.padded_tokens + counts.mixed_padded),
        "moved_requests": counts.moved,
        "prefilled_again_tokens": counts.prefilled_again,
        "lost_requests": answers - len(counts.finished),
        "duplicated_requests": sum(times - 1 for times in counts.finished.values()),
    }


def with_mixed(row: dict[str, Any]) -> int:
    return int(row["padded_tokens"] + row["mixed_padded_tokens"])


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, default=128, help="of the one domain (default: %(default)s)")
    parser.add_argument("--sequences", type=int, default=64, help="of an engine at once (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=16, help="answers to a prompt (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", help="of the graphs (default: the rollout's halvings)")
    parser.add_argument("--correlation", type=float, default=0.5, help="of a prompt's answers (default: %(default)s)")
    parser.add_argument("--prompt-tokens", type=int, default=200, help="of every prompt (default: %(default)s)")
    parser.add_argument("--token-budget", type=int, default=1024, help="of an engine's step (default: %(default)s)")
    parser.add_argument("--whole-prompts", action="store_true", help="prompts never go in pieces; needs a large budget")
    parser.add_argument("--lengths", type=Path, help="a file of lengths, beside the two distributions")
    parser.add_argument(
        "--real", type=int, nargs="+", default=[], metavar="ENGINES", help="compare with so many real ones"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one object")
    asked = parser.parse_args(arguments)
    if not 0 <= asked.correlation <= 1:
        parser.error("--correlation is from 0 to 1")
    if asked.engines * asked.sequences % asked.samples:
        parser.error(f"{asked.engines} x {asked.sequences} sequences are no whole number of {asked.samples} samples")
    sizes = tuple(sorted({*(asked.sizes or graph_sizes(asked.sequences, 1)), asked.sequences}))
    prompts = asked.engines * asked.sequences // asked.samples
    lengths = {
        name: make(prompts, asked.samples, asked.seed) for name, make in distributions(asked.correlation).items()
    }
    if asked.lengths:
        lengths["file"] = from_file(asked.lengths)
    rules = {"budget": asked.token_budget, "chunked": not asked.whole_prompts}
    say = (lambda *_: None) if asked.json else print
    report: dict[str, Any] = {}
    say(f"{asked.engines} engines of {asked.sequences} sequences, graphs {sizes}, correlation {asked.correlation}")
    for name, one in lengths.items():
        report[name] = counted(one, asked.engines, sizes, rules, asked.prompt_tokens)
        say(f"\n{name}: {report[name]['answers']} answers, mean {report[name]['mean_length']:.0f} tokens")
        show(report[name], say)
    real = compare_with_real(asked.real, say) if asked.real else {}
    if asked.json:
        top = {key: report["tail"][key] for key in ("padded_tokens_today", "padded_tokens_all", "ratio", *LOSSES)}
        settings = {"engines": asked.engines, "sequences": asked.sequences, "samples": asked.samples, "sizes": sizes}
        settings |= {"correlation": asked.correlation, "seed": asked.seed, "prompt_tokens": asked.prompt_tokens}
        print(json.dumps(top | {"settings": settings, "distributions": report, "real": real}, indent=2))
    return int(any(row[key] for row in real.values() for key in DIFFERENCES))


DIFFERENCES = ("generations_with_other_steps", "other_answers", "lost_requests", "duplicated_requests")


def compare_with_real(counts: Sequence[int], say: Any) -> dict[str, Any]:
    """By numbers of real engines, how they compare (benchmarks/rollout_real.py)."""
    os.environ.update(ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(upstream_dir())])})
    sys.path.insert(1, str(upstream_dir()))
    from benchmarks.rollout_real import RealEngines, compared

    found = {}
    with tempfile.TemporaryDirectory() as directory, closing(RealEngines(Path(directory))) as engines:
        for count in counts:
            found[str(count)] = compared(engines, count)
            say(f"\n{count} real engines: " + ", ".join(f"{key} {value}" for key, value in found[str(count)].items()))
    return found


def show(found: dict[str, Any], say: Any) -> None:
    say(
        f"{'':10}{'padded Mtokens':>15}{'of today':>10}{'steps':>8}{'mixed':>8}{'idle':>7}{'padding':>9}{'moved':>7}"
        f"{'prefilled again':>17}"
    )
    for mode, row in found["modes"].items():
        share = row["padded_tokens"] / found["padded_tokens_today"]
        steps = sum(row["decode_steps"].values())
        say(
            f"{mode:10}{row['padded_tokens'] / 1e6:15.1f}{share:10.3f}{steps:8}{row['mixed_steps']:8}"
            f"{row['idle_share']:7.1%}{row['padding_share']:9.1%}{row['moved_requests']:7}"
            f"{row['prefilled_again_tokens']:17}"
        )
    say(f"ratio {found['ratio']:.3f}; with the mixed steps on both sides {found['ratio_with_mixed']:.3f}")


if __name__ == "__main__":
    raise SystemExit(main())
