# SPDX-License-Identifier: Apache-2.0
"""The weight sync from actor to rollout: verl's own against the direct one, in one run.

    python benchmarks/switch.py [--dies 2 4 8] [--syncs 5] [--rehearse RUN.toml ...] [--json]

First the tiny model on simulated dies, in several layouts: verl's own workers over Megatron-core, engines of
vLLM-Ascend, a process for each die; both ways by turns, with the same weights. Of each sync: the seconds until the last
die is through, and, of the die that has most of it, bytes received, calls, and the memory taken beside the weights of
both engines. Seconds are those of processes on this machine, which exchange no bytes worth mentioning: they say
what the calls cost, not what a network does.

Then the true size: some stages of run files are rehearsed (docs/REHEARSAL.md) in both ways, up to a very short
generation. There is no time in that, only bytes, calls and memory of a die. What a die lacks at least is what its
rollout keeps less what its actor holds of it.

A call is a collective or a message. Needs the environment that scripts/setup.sh makes and takes about fifteen minutes
on two cores, most of it for the true size.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from recipe.plan.routes import routes_of, world  # noqa: E402
from recipe.plan.subject import Subject, subject  # noqa: E402
from recipe.rehearse.conduct import rehearse_stages  # noqa: E402
from recipe.rehearse.job import SWITCH  # noqa: E402
from recipe.rehearse.subject import Options, rehearsed  # noqa: E402
from recipe.runfile.config import RunConfig, load  # noqa: E402
from recipe.runfile.paths import upstream_dir  # noqa: E402
from tests.recipe.plan.layouts import Layout, make_model  # noqa: E402
from tests.recipe.plan.workers import Workers  # noqa: E402

GIB = 1 << 30
# Of the processes that are dies; each has one thread, as they are more than the cores.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1", "TORCHDYNAMO_DISABLE": "1"}
STOCK, OURS = "stock", "ours"
LAYOUTS: dict[str, dict[str, Any]] = {
    "all at home": {"dies": 2},
    "tp2; rollout tp2": {"dies": 2, "tensor": 2, "rollout_tensor": 2},
    "two uneven stages; rollout tp2": {"dies": 4, "stages": (1, 3), "rollout_tensor": 2},
    "two holders, two instances": {"dies": 4, "instances": 2},
    "two uneven stages of ep4; rollout tp2": {"dies": 8, "stages": (1, 3), "expert": 4, "rollout_tensor": 2},
    "two stages of ep2; two instances": {"dies": 8, "stages": (2, 2), "instances": 2},
}
RUN_FILES = [str(REPOSITORY / f"configs/{name}.toml") for name in ("a3_256die", "a3_384die_base_acc")]
# A generation that is over soon; the switch comes before it.
SHORT = {"prompt": 8, "response": 16, "decode_steps": 2, "micro_batches": 1, "rollout": "every", "save": False}


@dataclass(frozen=True)
class Measured:
    """Both ways in one layout, the tiny model's."""

    stock_s: float
    ours_s: float
    received_bytes: int
    minimum_bytes: int
    stock_bytes: int
    calls_stock: int
    calls_ours: int
    extra_peak_bytes: int
    stock_extra_peak_bytes: int

    @property
    def speedup(self) -> float:
        return self.stock_s / self.ours_s

    def row(self) -> dict[str, float]:
        return asdict(self) | {"speedup": self.speedup}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dies", type=int, nargs="*", default=[2, 4, 8], choices=(2, 4, 8), metavar="N",
                        help="2, 4, 8 or none of them (default: 2 4 8)")  # fmt: skip
    parser.add_argument("--syncs", type=int, default=5, metavar="N", help="each way, in each layout (default: 5)")
    parser.add_argument("--rehearse", nargs="*", type=Path, default=RUN_FILES, metavar="RUN.toml",
                        help="run files, or none (default: a3_256die, a3_384die_base_acc)")  # fmt: skip
    parser.add_argument("--stages", type=int, nargs="+", metavar="K",
                        help="of these (default: the first, the last, and one between)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.syncs < 1:
        parser.error(f"--syncs {options.syncs}; expected 1 or more")
    say = (lambda line: print(line, file=sys.stderr)) if options.json else print
    os.environ.update(ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(upstream_dir())])})
    report: dict[str, Any] = {"dies": {}}
    with tempfile.TemporaryDirectory(prefix="switch-") as place:
        directory = Path(place)
        if options.dies:
            report["dies"] = tiny(sorted(set(options.dies)), options.syncs, directory, say)
        for file in options.rehearse:
            config = load(Path(file))
            report[config.run.name] = true_size(config, options.stages, directory / config.run.name, say)
    if options.json:
        print(json.dumps(report, indent=2))
    return 0


def tiny(dies: list[int], syncs: int, directory: Path, say: Any) -> dict[str, Any]:
    """The tiny model: for each number of dies the layout with the smallest gain, and all of them."""
    say(f"{'dies, layout':48} {'stock':>9} {'ours':>9} {'gain':>7} {'received':>12} {'at least':>10} {'calls':>12}")
    made = make_model(directory / "model", Layout(1).expert_width)
    found: dict[str, Any] = {}
    with closing(Workers("benchmarks.switch_die", mindspeed=None, log=directory / "log")) as workers:
        for count in dies:
            rows = {}
            for name, sizes in LAYOUTS.items():
                if sizes["dies"] == count:
                    planned = Layout(**sizes, direct_sync=True).planned()
                    left = workers.run(planned, made, directory / "job", syncs=syncs)
                    rows[name] = measured(planned, left)
                    say(line(f"{count}, {name}", rows[name]))
            least = min(rows.values(), key=lambda row: row.speedup)
            found[str(count)] = least.row() | {"layouts": {name: row.row() for name, row in rows.items()}}
    return found


def measured(planned: Subject, left: list[list[dict[str, Any]]]) -> Measured:
    """What the dies of a layout have left, each of them a row for each sync."""

    def seconds(way: str) -> float:
        # The n-th sync of all dies is over when the last of them is through.
        each = zip(*([sync["seconds"] for sync in die if sync["way"] == way] for die in left), strict=True)
        return statistics.median(map(max, each))

    def most(way: str, what: str) -> int:
        return max(sync[what] for die in left for sync in die if sync["way"] == way)

    return Measured(
        seconds(STOCK),
        seconds(OURS),
        most(OURS, "received"),
        max(lacking(planned)),
        most(STOCK, "received"),
        most(STOCK, "calls"),
        most(OURS, "calls"),
        most(OURS, "extra_peak"),
        most(STOCK, "extra_peak"),
    )


def lacking(planned: Subject) -> list[int]:
    """Bytes of what each die's rollout keeps and its actor does not have."""
    figures = world(routes_of(planned))
    return [experts.lacking + dense.lacking for experts, dense in zip(figures.experts, figures.dense, strict=True)]


def line(name: str, row: Measured) -> str:
    return (
        f"{name:48} {row.stock_s * 1e3:6.0f} ms {row.ours_s * 1e3:6.0f} ms {row.speedup:6.1f}x "
        f"{row.received_bytes:12,} {row.minimum_bytes:10,} {row.calls_stock:6,} {row.calls_ours:5,}"
    )


def true_size(config: RunConfig, stages: list[int] | None, directory: Path, say: Any) -> dict[str, Any]:
    """A die of some stages of a run, rehearsed in both ways; the die that receives most by the direct one."""
    planned = subject(config)
    count = planned.layout.actor_pipeline
    chosen = tuple(sorted({0, count // 2, count - 1} if stages is None else set(stages)))
    found = {way: switches(config, chosen, directory / way, way) for way in (STOCK, OURS)}
    routes = routes_of(planned)
    figures, least = world(routes), lacking(planned)
    each = planned.layout.dies // count
    rows = {}
    for stage in chosen:
        rank = stage * each
        rows[stage] = {
            "expert_bytes": figures.experts[rank].received,
            "other_bytes": figures.dense[rank].received,
            "received_bytes": found[OURS][stage]["received"],
            "minimum_bytes": least[rank],
            "stock_bytes": found[STOCK][stage]["received"],
            "calls": found[OURS][stage]["calls"],
            "rounds": len(routes.of_rank(rank).all_rounds),
            "calls_stock": found[STOCK][stage]["calls"],
            "extra_peak_bytes": found[OURS][stage]["extra_peak"],
            "stock_extra_peak_bytes": found[STOCK][stage]["extra_peak"],
        }
        say(f"{config.run.name}, stage {stage}: " + ", ".join(map(shown, rows[stage], rows[stage].values())))
    most = max(rows.values(), key=lambda row: row["received_bytes"])
    return most | {"stages": {str(stage): row for stage, row in rows.items()}}


def switches(config: RunConfig, stages: tuple[int, ...], directory: Path, way: str) -> dict[int, dict[str, int]]:
    """What was counted in the switch of each stage."""
    rollout = dataclasses.replace(config.rollout, direct_sync=way == OURS)
    directory.mkdir(parents=True)
    run = rehearsed(dataclasses.replace(config, rollout=rollout), Options(stages, **SHORT), upstream_dir())
    found = {}
    for result in rehearse_stages(run, directory, lambda line: None):
        switch = result.phases[SWITCH]
        stays = switch.contents["rollout weights"] + switch.contents["actor weights"]
        found[result.stage] = {
            "received": sum(one["received"] for one in switch.traffic),
            "calls": sum(one["calls"] for one in switch.traffic),
            "extra_peak": switch.peak_bytes - stays,
        }
    return found


def shown(name: str, value: int) -> str:
    words = name.removesuffix("_bytes").replace("_", " ")
    return f"{words} {value / GIB:.2f} GiB" if name.endswith("bytes") else f"{words} {value:,}"


if __name__ == "__main__":
    sys.exit(main())
