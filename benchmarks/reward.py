# SPDX-License-Identifier: Apache-2.0
r"""What grading costs, what wrong answers it pays for, and how many truths it can read.

The cost is that of 8,192 typical answers on one core, of hostile ones among them, and of the worst single one, beside
mathruler and math-verify in the same process. They grade through sympy's parse_expr, which is eval, so they get only
the typical answers, which are made here. For all figures, in an environment of its own (the reward itself needs nothing
but Python):

    python -m venv graders && graders/bin/pip install mathruler pylatexenc tqdm "math-verify[antlr4_9_3]"
    graders/bin/python benchmarks/reward.py [--json] [--data gsm8k_test.json] [--agreement] [--adversary N]

``--peers none`` measures without the two. ``--adversary N`` grades N wrong answers that are made by rule.
``--truths NAME=FILE`` gives the share of a data set's truths that the grammar reads as ``readable_NAME``; FILE is JSON
or JSON lines with the field "answer" or "final_answer". ``--plot FILE`` draws the cost of hostile answers by length
(needs matplotlib).
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import logging
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks import reward_adversary, reward_truths  # noqa: E402
from recipe.reward import grade  # noqa: E402
from recipe.reward.grade import same_answer  # noqa: E402
from recipe.reward.grammar.answers import read  # noqa: E402
from recipe.reward.processes.batch import Pool  # noqa: E402
from verl_patches.utils.reward_score.r1_zero import compute_score  # noqa: E402

BATCH = 512 * 16
SAMPLE = REPOSITORY / "data" / "deepscaler_sample.json"
LENGTHS = [2**power for power in range(8, 17)]
#: math-verify takes about a millisecond an answer: its time is that of a part of the batch, scaled.
MATH_VERIFY_PART = 1024

INSTALL = f'{sys.executable} -m pip install mathruler pylatexenc tqdm "math-verify[antlr4_9_3]"'

Pair = tuple[str, Any]
Grader = Callable[[str, str], bool]


def main() -> None:
    """Measures and prints the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--data", type=Path, default=SAMPLE, help="problems with answers (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the median counts (default 3)")
    parser.add_argument("--agreement", action="store_true", help="compare verdicts with mathruler's")
    parser.add_argument(
        "--peers", nargs="+", choices=[*PEERS, "none"], default=list(PEERS), help="graders to compare with"
    )
    parser.add_argument("--adversary", type=int, default=2000, help="wrong answers to grade (default 2000, 0: none)")
    parser.add_argument("--truths", nargs="+", default=[], metavar="NAME=FILE", help="data sets whose truths to read")
    parser.add_argument("--plot", type=Path, help="draw the growth with the length into this file")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    records = json.loads(arguments.data.read_text(encoding="utf-8"))
    peers = [name for name in PEERS if name in arguments.peers]
    require([*peers, "mathruler"] if arguments.agreement else peers)
    files = reward_truths.files(arguments.truths)
    result: dict[str, Any] = measure(records, arguments.repeats, peers)
    if arguments.adversary:
        result.update(reward_adversary.run(arguments.adversary, adversary_records()).as_dict())
    for name, path in files.items():
        result.update(reward_truths.readable(name, path))
    if "deepscaler" not in files:
        print(reward_truths.HOW_TO_GET_THEM, file=sys.stderr)
    if arguments.agreement:
        result.update(agreement(records))
    if arguments.plot:
        plot(arguments.plot)
    if arguments.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:28} {json.dumps(value) if isinstance(value, list) else value}")


def measure(records: list[dict[str, str]], repeats: int, peers: list[str]) -> dict[str, float]:
    """Seconds, and how many times faster we are than each peer."""
    typical = typical_batch(records)
    with_hostile = hostile_batch(typical)
    # Ours first: with the others loaded, as they never are where a run grades, Python collects its garbage more slowly.
    ours = statistics.median(seconds(grade_all, typical) for _ in range(repeats))
    hostile = statistics.median(seconds(grade_all, with_hostile) for _ in range(repeats))
    parts = {"mathruler": typical, "math_verify": typical[:: len(typical) // MATH_VERIFY_PART]}
    speedups = {
        f"speedup_vs_{name}": round(
            seconds(run_all(PEERS[name]()), parts[name]) / len(parts[name]) * len(typical) / ours, 1
        )
        for name in peers
    }
    return {
        "answers": len(typical),
        "seconds_8192_one_core": round(ours * BATCH / len(typical), 4),
        "seconds_8192_one_process": round(through_a_process(typical) * BATCH / len(typical), 4),
        **speedups,
        "hostile_batch_ratio": round(hostile / ours, 3),
        "worst_answer_ms": round(max(max(map(pair_cost, COSTLY)), worst_of_hostile()) * 1e3, 3),
    }


def through_a_process(pairs: list[Pair]) -> float:
    """Wall seconds through one grading process that has just come up, with the way there and back."""
    pool = Pool(workers=1)
    pool.grade([("", "1")])
    start = time.perf_counter()
    pool.grade(pairs)
    passed = time.perf_counter() - start
    pool.close()
    return passed


def typical_batch(records: list[dict[str, str]], seed: int = 0) -> list[Pair]:
    """512 problems with 16 responses each: right ones in several spellings, wrong ones, and without an answer."""
    rng = random.Random(f"typical {seed}")
    chosen = [rng.choice(records) for _ in range(BATCH // 16)]
    return [(response(record, rng), record["answer"]) for record in chosen for _ in range(16)]


def response(record: dict[str, str], rng: random.Random) -> str:
    """The solution as the thinking, and an answer in one of the spellings; in 1 of 10 the tags are broken."""
    spelled = rng.choice([*(form for form, _ in forms(record["answer"]))])
    if rng.random() < 0.3:
        spelled = str(rng.randint(0, 10**5))
    text = f"<think>{record['solution']}</think>\n<answer>So the answer is \\boxed{{{spelled}}}.</answer>"
    return text if rng.random() < 0.9 else text.replace("</think>", "")


def forms(answer: str) -> Iterator[tuple[str, str]]:
    """Spellings of a gold answer with the name of each; those named "not …" are other answers."""
    yield answer, "as it is"
    try:
        value = int(answer)
    except ValueError:
        return
    yield f"{value:,}", "thousands commas"
    yield f"{value}.00", "decimals"
    yield f"\\${value}", "dollar sign"
    yield f"${value}$", "math mode"
    yield f"{value}.", "full stop"
    yield f" {value} ", "spaces"
    yield f"\\text{{{value}}}", "text command"
    yield f"{value}\\%", "percent sign"
    yield f"{value}^\\circ", "degrees"
    yield f"{value} hours", "unit"
    yield f"{value}\\text{{ cm}}", "unit in text"
    yield f"{{{value}}}", "braces"
    yield f"{value:+}", "plus sign"
    yield f"0{value}", "leading zero"
    yield f"\\frac{{{3 * value}}}{{3}}", "fraction"
    yield f"{2 * value}/2", "slash"
    yield f"x={value}", "name"
    yield f"{value - 1}+1", "sum"
    yield str(value + 1), "not: next number"
    yield str(-value - 1), "not: negative"
    yield f"{value}0", "not: digit more"
    yield f"{value}.5", "not: half more"
    yield f"{value}/7", "not: fraction"
    yield f"({value},{value})", "not: pair"
    yield f"{value},{value + 1}", "not: list"
    yield f"{value}^2+1", "not: expression"
    yield "\\text{none}", "not: word"


def odd_forms(answer: str) -> Iterator[tuple[str, str]]:
    """Spellings that graders are known to differ on."""
    try:
        value = int(answer)
    except ValueError:
        return
    yield f"{value} dollars", "dollars"
    yield f"{value} apples", "other word"
    yield f"{value}\\text{{ kg}}", "kilograms"
    yield f"{value} cents", "cents"
    yield f"{value}/1", "over one"
    yield f"{value}\\times10^0", "times a power of ten"
    yield f"{value / 1000}\\times10^{{3}}", "scientific"
    yield f"{100 * value}\\%", "hundredfold percent"
    yield f"\\{{{value}\\}}", "set of one"
    yield f"{value}_{{10}}", "base ten"
    yield f"{value} million", "not: million"
    yield f"{value} and {value}", "not: twice"
    yield f"{value - 1} 2/2", "mixed number"


#: Hostile content of a box, or a whole response, of about the given length; ``index`` keeps them apart.
HOSTILE: dict[str, Callable[[int, int], str]] = {
    "tower": lambda n, index: boxed("9^{" * (n // 4) + f"{index}" + "}" * (n // 4)),
    "tower without braces": lambda n, index: boxed("9^" * (n // 2) + f"{index}"),
    "factorials": lambda n, index: boxed(f"{index}99999" + "!" * n),
    "repetition": lambda n, index: "<think>" + f"wait {index} " * (n // 7),
    "repeated tags": lambda n, index: "<think></think><answer></answer>" * (n // 32) + str(index),
    "unclosed tags": lambda n, index: "<think>" * (n // 7) + str(index),
    "unclosed boxes": lambda n, index: "<answer>" + "\\boxed{" * (n // 7) + f"{index}</answer>",
    "boxes": lambda n, index: f"<answer>{index}" + "\\boxed{1}" * (n // 9) + "</answer>",
    "deep nesting": lambda n, index: boxed("(" * (n // 2) + str(index) + ")" * (n // 2)),
    "deep fractions": lambda n, index: boxed("\\frac{" * (n // 10) + str(index) + "}{1}" * (n // 10)),
    "deep roots": lambda n, index: boxed("\\sqrt{" * (n // 7) + str(index) + "}" * (n // 7)),
    "digits": lambda n, index: boxed("9" * n + str(index)),
    "decimal powers": lambda n, index: boxed("+".join([f"x^{{0.{index}1}}"] * (n // 9))),
    "powers of powers": lambda n, index: boxed(f"(\\sqrt{{2}}+x)^{{99.{index}}}" * (n // 24)),
    "long sum": lambda n, index: boxed("+".join(["\\sqrt{2}x"] * (n // 10)) + f"+{index}"),
    "mixed numbers": lambda n, index: boxed("1\\frac{" * (n // 11) + f"x{index}" + "}{2}" * (n // 11)),
    "commas": lambda n, index: boxed(f"{index}" + ",111" * (n // 4)),
    "spaces": lambda n, index: boxed(" " * n + str(index)),
    "unicode": lambda n, index: boxed("²½√∞e\u0301\uff45\u200d" * (n // 7) + str(index)),
    "backslashes": lambda n, index: boxed("\\" * n + str(index)),
    "functions": lambda n, index: boxed("+".join(f"\\sin {place}{index}x" for place in range(n // 9))),
    "matrices": lambda n, index: boxed(f"\\begin{{pmatrix}}{index}" + "&x\\\\" * (n // 5) + "\\end{pmatrix}"),
    "inequalities": lambda n, index: boxed(" or ".join(f"{place}<x<{place}.{index}" for place in range(n // 12))),
    "no value": lambda n, index: boxed("+".join([f"x^{{0.3}}0^{{-{index}}}"] * (n // 14))),
    "answer lines": lambda n, index: "answer " * (n // 7) + str(index),
}


#: Answers and truths within all budgets that take the longest to compare, of those that were looked for.
COSTLY: list[Pair] = [
    (" or ".join(f"a^{i}<x<b^{i}" for i in range(1, 20)), " or ".join(f"a^{i}<x<b^{i}" for i in range(19, 0, -1))),
    (",".join(f"x^{{.{i}}}" for i in range(11, 43)), ",".join(f"x^{{0.{i}0}}" for i in range(42, 10, -1))),
    ("+".join(["2999!"] * 40), "\\sqrt2+x!"),
    ("\\arctan x^{1/3}" * 10, "\\arctan x^{1/3}" * 10 + "+0"),
]


def pair_cost(pair: Pair) -> float:
    """Seconds for one answer in the least of three, nothing remembered."""
    return min(seconds(grade_all, [(boxed(pair[0]), pair[1])]) for _ in range(3))


def worst_of_hostile() -> float:
    """Seconds for the hostile answer that costs most, of every kind and length."""
    return max(cost(kind, length) for kind in HOSTILE for length in LENGTHS)


def boxed(content: str) -> str:
    """A response of the right format with this in its box."""
    return f"<think></think><answer>\\boxed{{{content}}}</answer>"


def hostile_batch(typical: list[Pair]) -> list[Pair]:
    """The typical batch with every hundredth response hostile: in turn short, as long as a box may be, and 100 kB."""
    batch = list(typical)
    kinds = list(HOSTILE.values())
    for index, place in enumerate(range(0, len(batch), 100)):
        length = (350, 950, 100_000)[index % 3]
        batch[place] = (kinds[index % len(kinds)](length, index), batch[place][1])
    return batch


def cost(kind: str, length: int) -> float:
    """Seconds for one hostile answer against an expression, the least of three, nothing remembered."""
    text = HOSTILE[kind](length, 7)[:length] if kind == "answer lines" else HOSTILE[kind](length, 7)
    return min(seconds(grade_all, [(text, "\\sqrt{2}x^{0.3}+\\pi")]) for _ in range(3))


def grade_all(pairs: list[Pair]) -> None:
    for text, truth in pairs:
        compute_score("gsm8k", text, truth)


def run_all(grader: Grader) -> Callable[[list[Pair]], None]:
    def run(pairs: list[Pair]) -> None:
        for text, truth in pairs:
            grader(text, truth)

    return run


def seconds(function: Callable[[list[Pair]], None], pairs: list[Pair]) -> float:
    """Processor time of this process, with nothing remembered from before."""
    for cached in (read, grade._grade, grade._rough_value, grade.normalise_once):
        cached.cache_clear()
    start = time.process_time()
    function(pairs)
    return time.process_time() - start


def require(peers: list[str]) -> None:
    """Ends with what to type where a peer is not installed. Loads none."""
    for name in peers:
        if importlib.util.find_spec(name) is None:
            raise SystemExit(f"error: {name} is not installed here; run: {INSTALL}, or give --peers none")


def mathruler_grader() -> Grader:
    """Its way from a response to a verdict."""
    from mathruler.grader import extract_boxed_content, grade_answer

    return lambda text, truth: grade_answer(extract_boxed_content(text), truth)


def math_verify_grader() -> Grader:
    """Its way from a response to a verdict."""
    from math_verify import parse, verify

    return lambda text, truth: verify(parse(truth), parse(text))


PEERS: dict[str, Callable[[], Grader]] = {"mathruler": mathruler_grader, "math_verify": math_verify_grader}


def adversary_records() -> list[dict[str, str]]:
    """The problems that the adversary takes spans from: the sample that is in the tree."""
    return json.loads(SAMPLE.read_text(encoding="utf-8"))


def agreement(records: list[dict[str, str]]) -> dict[str, Any]:
    """How often mathruler and we say the same on every gold answer in every spelling, and where not, by spelling."""
    from mathruler.grader import grade_answer

    table: dict[str, Any] = {}
    for key, spellings in (("", forms), ("odd_", odd_forms)):
        same = 0
        differ: dict[tuple[str, bool], dict[str, Any]] = {}
        for record in records:
            for spelled, name in spellings(record["answer"]):
                our_verdict, their_verdict = (
                    same_answer(spelled, record["answer"]),
                    bool(grade_answer(spelled, record["answer"])),
                )
                if our_verdict == their_verdict:
                    same += 1
                    continue
                row = differ.setdefault((name, our_verdict), {"spelling": name, "ours": our_verdict, "count": 0})
                row.setdefault("example", [spelled, record["answer"]])
                row["count"] += 1
        total = same + sum(row["count"] for row in differ.values())
        table |= {f"{key}pairs": total, f"{key}agreement_with_mathruler": round(same / max(total, 1), 4)}
        table[f"{key}disagreements"] = list(differ.values())
    return table


def plot(path: Path) -> None:
    """Milliseconds by length, both logarithmic, one line a kind, and one of slope 1."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "reward", "font.size": 8}
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    lengths = [*LENGTHS, *(2**power for power in range(17, 21))]
    axes.plot(lengths, [length * 2e-6 for length in lengths], "k--", linewidth=1, label="slope of linear growth")
    for place, kind in enumerate(HOSTILE):
        times = [cost(kind, length) * 1e3 for length in lengths]
        axes.plot(lengths, times, ("-", "--", ":")[place // 10], color=f"C{place % 10}", linewidth=1, label=kind)
    axes.axhline(50, color="red", linewidth=1, label="the most that one answer may cost")
    axes.set(xscale="log", yscale="log", xlabel="characters of the response", ylabel="milliseconds", ylim=(0.01, 100))
    axes.set_xticks([2**10, 2**13, 2**16, 2**20], ["1 k", "8 k", "64 k", "1 M"])
    axes.minorticks_off()
    axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    drawn = io.StringIO()
    figure.savefig(drawn, metadata={"Date": None, "Creator": None})
    # A tenth of a point is finer than the eye, and a path needs no line for each of its points.
    short = re.sub(r"([0-9]\.[0-9])[0-9]+", r"\1", drawn.getvalue())
    path.write_text(re.sub(r" ?\n(?=[LMCQz\"])", " ", short), encoding="utf-8")


if __name__ == "__main__":
    main()
