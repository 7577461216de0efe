# SPDX-License-Identifier: Apache-2.0
"""`report.html`: one file that shows a run and needs nothing else.

Everything from outside is escaped, and without the characters that would change how the rest is read.
"""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

from recipe.report.answers import Answer
from recipe.report.colours import VARIABLES
from recipe.text import printable, printable_lines

STYLE = (
    VARIABLES
    + """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  color: var(--text); background: var(--back); }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; vertical-align: top; }
tr { border-bottom: 1px solid var(--line); } td.number { font-variant-numeric: tabular-nums; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: .85rem; }
li { overflow-wrap: anywhere; } summary { cursor: pointer; margin-top: 1rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1rem; }
img { width: 100%; background: #fff; border-radius: 4px; }
.note { color: var(--note); } .failed { color: var(--failed); }
"""
)
SIMULATED = (
    "The devices were simulated NPUs: the results show that the stack works together, and say nothing about speed."
)
MIB, GIB = 2**20, 2**30


def page(
    name: str,
    summary: dict[str, Any],
    plots: dict[str, Path],
    answers: list[Answer],
    first: int,
    last: int,
    run_file: str | None = None,
) -> str:
    """The page's HTML.

    Args:
        name: of the run.
        summary: what `recipe.report.summary.summarise` gives.
        plots: title -> PNG file.
        answers: sampled ones, of the validations after the steps `first` and `last`.
        run_file: its text.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{_safe(name)}</title><style>{STYLE}</style></head><body>",
        f"<h1>GRPO run {_safe(name)}</h1>",
    ]
    if summary["device"] == "sim":
        parts.append(f'<p class="note">{SIMULATED}</p>')
    if summary.get("status") != "finished":
        parts.append(f'<p class="failed">This run did not finish: {_safe(str(summary.get("error") or "unknown"))}</p>')
    if summary["marks"]:
        parts.append(_marks(summary["marks"]))
    parts += [_figures(summary), "<h2>Curves</h2>", '<div class="plots">']
    parts += [f'<img alt="{_safe(title)}" src="{_embedded(path)}">' for title, path in plots.items()]
    parts.append("</div>")
    if answers:
        parts.append(_answers(answers, first, last))
    parts += [_processes(summary), _patches(summary)]
    if run_file is not None:
        parts.append(f"<details><summary>Run file</summary><pre>{_safe_lines(run_file)}</pre></details>")
    parts.append("</body></html>")
    return "\n".join(parts) + "\n"


def _safe(text: str) -> str:
    return html.escape(printable(text))


def _safe_lines(text: str) -> str:
    return html.escape(printable_lines(text))


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _figures(summary: dict[str, Any]) -> str:
    rows = [
        ("Steps", _number(summary["steps"], 0)),
        ("Time in all", _duration(summary["wall_s"])),
        ("Time of a step (median)", f"{_number(summary['step_s_median'], 1)} s"),
        ("Validation score, first to last", _pair(summary["val_score_first"], summary["val_score_last"])),
        ("Reward, first to last step", _pair(summary["reward_first"], summary["reward_last"])),
        ("Rollout against actor: Pearson, smallest", _number(summary["rollout_actor_pearson_min"], 5)),
        ("Rollout against actor: |KL|, largest", _number(summary["rollout_actor_kl_abs_max"], 6)),
        *_replay(summary),
        ("Rollout's device memory after a release, largest", _size(summary["released_bytes_max"])),
        ("Device memory, peak of one device", _size(summary["peak_hbm_bytes"])),
        ("Host memory of all processes, peak", _size(summary["rss_peak_bytes"])),
        ("Upstreams", ", ".join(f"{name} {version}" for name, version in summary["upstreams"].items())),
        ("Runtime", ", ".join(f"{name} {version}" for name, version in summary["runtime"].items())),
        ("Seed", _number(summary["seed"], 0)),
    ]
    cells = "".join(f'<tr><th>{_safe(label)}</th><td class="number">{_safe(value)}</td></tr>' for label, value in rows)
    return f"<h2>Figures</h2><table>{cells}</table>"


def _replay(summary: dict[str, Any]) -> list[tuple[str, str]]:
    replayed, flips = summary["routing_replayed_min"], summary["routing_flips_max"]
    if replayed is None or flips is None:
        return []
    return [
        ("The sampler's experts, followed by the actor, smallest share", f"{100 * replayed:.4f} %"),
        ("Those of them that it would not have chosen itself, largest share", f"{100 * flips:.2f} %"),
    ]


def _number(value: Any, digits: int) -> str:
    return "not recorded" if value is None else f"{value:.{digits}f}"


def _pair(first: Any, last: Any) -> str:
    return f"{_number(first, 3)} → {_number(last, 3)}"


def _size(value: Any) -> str:
    if value is None:
        return "not recorded"
    return f"{value / GIB:.2f} GiB" if value >= GIB else f"{value / MIB:.1f} MiB"


def _duration(seconds: Any) -> str:
    if seconds is None:
        return "not recorded"
    rounded = round(seconds)
    return f"{rounded // 3600}:{rounded // 60 % 60:02d}:{rounded % 60:02d} hours"


def _answers(answers: list[Answer], first: int, last: int) -> str:
    head = (
        f"<h2>Sampled answers</h2><table><tr><th>Problem</th><th>Answer</th><th>At step {first}</th>"
        f"<th>At step {last}</th></tr>"
    )
    rows = "".join(
        f"<tr><td><pre>{_safe_lines(a.problem)}</pre></td><td>{_safe(a.truth)}</td>"
        f"<td><pre>{_safe_lines(a.before)}</pre>score {a.before_score:.2f}</td>"
        f"<td><pre>{_safe_lines(a.after)}</pre>score {a.after_score:.2f}</td></tr>"
        for a in answers
    )
    return f"{head}{rows}</table>"


def _marks(marks: list[dict[str, Any]]) -> str:
    rows = "".join(
        f'<tr><td class="number">{mark["step"]}</td><td>{_safe(mark["kind"])}</td><td>{_safe(mark["name"])}</td>'
        f"<td>{_safe(mark['text'])}</td></tr>"
        for mark in marks
    )
    head = "<h2>Marks</h2><table><tr><th>Step</th><th>Kind</th><th>Rule or key</th><th>What</th></tr>"
    return f"{head}{rows}</table>"


def _processes(summary: dict[str, Any]) -> str:
    rows = "".join(
        "<tr>" + "".join(f"<td>{_safe(str(process[key]))}</td>" for key in ("role", "pid", "patches")) + "</tr>"
        for process in summary["processes"]
    )
    return f"<h2>Processes with the overlay</h2><table><tr><th>Role</th><th>PID</th><th>Patches</th></tr>{rows}</table>"


def _patches(summary: dict[str, Any]) -> str:
    live = "".join(f"<li><code>{_safe(patch)}</code></li>" for patch in summary["patches_live"])
    skipped = "".join(
        f"<li><code>{_safe(patch)}</code>: {_safe(reason)}</li>" for patch, reason in summary["patches_skipped"].items()
    )
    text = _folded("Patches live", live, len(summary["patches_live"]))
    return text + (_folded("Patches not needed here", skipped, len(summary["patches_skipped"])) if skipped else "")


def _folded(title: str, items: str, count: int) -> str:
    return f"<details><summary>{title} ({count})</summary><ul>{items}</ul></details>"
