# SPDX-License-Identifier: Apache-2.0
"""What it costs that tensors go through the driver: bytes and seconds of every hop of a GRPO step, on real Ray.

    python benchmarks/dispatch.py [--dies 2 4] [--serialization torch numpy] [--json]

verl's own worker groups, dispatch and `DataProto`, with our overlay, carry a step's whole batch (all keys of a GRPO
step with a reference) from the driver to workers that do nothing with it, and back: generation, old log-prob,
reference, update. Of each hop, apart: what the driver does alone (cutting the batch up, putting it into the object
store, taking the answers out, joining them), and what workers do beside each other. The measured seconds hold no model
and no network. verl knows two ways to write a batch down, VERL_DATAPROTO_SERIALIZATION_METHOD: torch.save, and arrays.

Of more dies than there are here: the driver's own seconds are a straight line through those measured (its bytes are the
same, its objects are not); a die's own share shrinks with its part of the batch; and bytes leave and reach the driver's
node once for each node that wants them, at --link gigabits a second. 8,192 sequences of 3,072 tokens need 7 GiB of
memory, and 1.5 GiB for each die.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
UPSTREAM = Path(os.environ.get("RECIPE_UPSTREAM") or REPOSITORY / "upstream")
PATHS = [str(REPOSITORY), str(UPSTREAM)]
sys.path[:0] = PATHS

GIB = 1 << 30
PROMPT, RESPONSE = 1024, 2048
# The layout of configs/a3_256die.toml.
DIES, PIPELINE, ROLLOUT_TENSOR_PARALLEL, DIES_PER_NODE = 256, 8, 2, 16
HOPS = ("generate_sequences", "compute_log_prob", "compute_ref_log_prob", "update_actor")


@dataclass
class Hop:
    """One way to the dies and back; seconds and bytes.

    Attributes:
        sent: the batch, once.
        received: what all dies return; `used` of it is kept.
        cut, put, join: of the driver alone.
        there: from the last object put to the last die's beginning.
        back: from the last die's end until the driver has everything.
        around: of the driver, between this hop and the one before: union, repeat, reorder.
    """

    sent: int = 0
    received: int = 0
    used: int = 0
    cut: float = 0.0
    put: float = 0.0
    there: float = 0.0
    back: float = 0.0
    join: float = 0.0
    around: float = 0.0

    @property
    def alone(self) -> float:
        """Seconds in which the dies wait for the driver."""
        return self.cut + self.put + self.back + self.join + self.around


@dataclass
class Stopwatch:
    """Takes the times of the driver's parts of the hop that is under way."""

    hop: Hop = field(default_factory=Hop)
    put_ended: float = 0.0
    got: float = 0.0

    def times(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.of(name):
                return function(*args, **kwargs)

        return timed

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        setattr(self.hop, name, getattr(self.hop, name) + time.perf_counter() - start)


def tensor_bytes(data: Any) -> int:
    """Of a DataProto: its tensors, and its objects as pickle writes them."""
    tensors = sum(tensor.nbytes for tensor in data.batch.values()) if data.batch is not None else 0
    return tensors + len(pickle.dumps(data.non_tensor_batch, protocol=5))


def watch_driver(watch: Stopwatch) -> None:
    """Put the stopwatch around the four things that verl's dispatch does in the driver."""
    import ray
    from verl.single_controller.base import decorator
    from verl.utils import ray_utils

    decorator._split_args_kwargs_data_proto = watch.times("cut", decorator._split_args_kwargs_data_proto)
    joined = decorator._concat_data_proto_or_future

    def join(output: list[Any]) -> Any:
        watch.hop.used = sum(map(tensor_bytes, output))
        with watch.of("join"):
            return joined(output)

    put = ray_utils.parallel_put

    def parallel_put(*args: Any, **kwargs: Any) -> Any:
        with watch.of("put"):
            references = put(*args, **kwargs)
        watch.put_ended = time.time()
        return references

    get = ray.get

    def get_all(*args: Any, **kwargs: Any) -> Any:
        output = get(*args, **kwargs)
        watch.got = time.time()
        if isinstance(output, list) and all(hasattr(one, "non_tensor_batch") for one in output):
            watch.hop.received = sum(map(tensor_bytes, output))
        return output

    decorator._concat_data_proto_or_future = join
    ray_utils.parallel_put = parallel_put
    ray.get = get_all


def first_batch(prompts: int, prompt: int) -> Any:
    """What the data loader gives: tensors, and the objects of a row of our data sets."""
    import numpy as np
    import torch
    from verl import DataProto

    from recipe.data.samples import sample_problems

    def column(values: list[Any]) -> Any:
        made = np.empty(prompts, dtype=object)
        made[:] = values
        return made

    rows = sample_problems(prompts, 1)
    mask = torch.ones(prompts, prompt, dtype=torch.long)
    return DataProto.from_dict(
        tensors={
            "input_ids": torch.randint(129_280, (prompts, prompt)),
            "attention_mask": mask,
            "position_ids": mask.cumsum(-1) - 1,
        },
        non_tensors={
            "uid": column([f"{place:032x}" for place in range(prompts)]),
            "data_source": column(["deepscaler"] * prompts),
            "ability": column(["math"] * prompts),
            "reward_model": column([{"style": "rule", "ground_truth": row["answer"]} for row in rows]),
            "extra_info": column([{"index": place, "split": "train"} for place in range(prompts)]),
            "index": column(list(range(prompts))),
            "raw_prompt_ids": column([list(range(175)) for _ in range(prompts)]),
            "tools_kwargs": column([{} for _ in range(prompts)]),
            "interaction_kwargs": column([{} for _ in range(prompts)]),
        },
    )


def step(group: Any, watch: Stopwatch, options: argparse.Namespace) -> dict[str, Hop]:
    """A step's four hops as verl's trainer makes them, with what it does to the batch between them."""
    import torch
    from verl.trainer.ppo.ray_trainer import AdvantageEstimator, compute_advantage, compute_response_mask

    hops: dict[str, Hop] = {}

    def travel(name: str, data: Any) -> Any:
        hop = watch.hop
        hop.sent = tensor_bytes(data)
        answer = getattr(group, name)(data)
        got = watch.got
        at_work = group.at_work()
        hop.there = max(began for began, _ in at_work) - watch.put_ended
        hop.back = got - max(ended for _, ended in at_work)
        hops[name], watch.hop = hop, Hop()
        return answer

    batch = first_batch(options.prompts, options.prompt)
    with watch.of("around"):
        kept = {"uid", "data_source", "reward_model", "extra_info"}
        generation = batch.pop(
            batch_keys=["input_ids", "attention_mask", "position_ids"],
            non_tensor_batch_keys=[name for name in batch.non_tensor_batch if name not in kept],
        ).repeat(options.samples, interleave=True)
    answers = travel("generate_sequences", generation)
    with watch.of("around"):
        batch = batch.repeat(options.samples, interleave=True).union(answers)
        batch.batch["response_mask"] = compute_response_mask(batch)
        batch.reorder(torch.randperm(len(batch)))  # as verl balances lengths over the dies
    old = travel("compute_log_prob", batch)
    with watch.of("around"):
        old.batch.pop("entropys")
        batch = batch.union(old)
    reference = travel("compute_ref_log_prob", batch)
    with watch.of("around"):
        batch = batch.union(reference)
    batch.batch["token_level_scores"] = batch.batch["token_level_rewards"] = torch.rand_like(
        reference.batch["ref_log_prob"]
    )
    batch = compute_advantage(batch, AdvantageEstimator.GRPO, num_repeat=options.samples)
    travel("update_actor", batch)
    return hops


def measure(dies: int, serialization: str, options: argparse.Namespace) -> dict[str, Hop]:
    """The hops of the fastest of --repeat steps over so many dies; for a process of its own."""
    os.environ |= {"PYTHONPATH": os.pathsep.join(PATHS), "VERL_DATAPROTO_SERIALIZATION_METHOD": serialization}
    import verl_patches.prelude_patch  # noqa: F401

    # isort: split
    import ray
    from verl.single_controller.ray.base import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup

    from benchmarks.dispatch_die import Die

    ray.init(
        num_cpus=2 * dies, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        object_store_memory=options.store_gib * GIB, _node_ip_address="127.0.0.1",
    )  # fmt: skip
    watch = Stopwatch()
    watch_driver(watch)
    made = RayClassWithInitArgs(
        ray.remote(Die), pipeline=pipeline_of(dies), rollout_tensor_parallel=ROLLOUT_TENSOR_PARALLEL,
        response=options.response,
    )  # fmt: skip
    group = RayWorkerGroup(RayResourcePool([dies], use_gpu=False, max_colocate_count=1), made, device_name="cpu")
    steps = [step(group, watch, options) for _ in range(options.repeat + 1)][1:]  # the first one warms up
    ray.shutdown()
    return min(steps, key=lambda hops: sum(hop.alone for hop in hops.values()))


def pipeline_of(dies: int) -> int:
    """Stages of so many dies: those of the 256-die run where that leaves two dies a stage."""
    return max(1, min(PIPELINE, dies // 2))


def line(points: dict[int, float], at: int) -> float:
    """The least-squares straight line through points, there."""
    dies, seconds = list(points), list(points.values())
    slope = statistics.linear_regression(dies, seconds).slope if len(points) > 1 else 0.0
    return statistics.fmean(seconds) + max(0.0, slope) * (at - statistics.fmean(dies))


def at_true_size(measured: dict[int, dict[str, Hop]], link_gbit: float) -> dict[str, dict[str, float]]:
    """Each hop on 256 dies: the driver's own seconds, a die's, and those of the wire at the driver's node."""
    fewest = min(measured)
    wire_rate = link_gbit * 1e9 / 8
    hops = {}
    for name in HOPS:
        hop = measured[fewest][name]
        rollout = name == "generate_sequences"
        # A node's dies want each part of the batch once; dies that share a part are in one node in the rollout only.
        sent_times, returned_times = (1, ROLLOUT_TENSOR_PARALLEL) if rollout else (PIPELINE, PIPELINE)
        parts = DIES // (ROLLOUT_TENSOR_PARALLEL if rollout else PIPELINE)
        parts_here = fewest // (ROLLOUT_TENSOR_PARALLEL if rollout else pipeline_of(fewest))
        driver = line({dies: hops_of[name].alone - hops_of[name].back for dies, hops_of in measured.items()}, DIES)
        # What the driver takes out of the store grows with the copies that the dies return.
        taken = hop.back / max(1, hop.received) * hop.used * returned_times
        hops[name] = {
            "sent_bytes": hop.sent * sent_times,
            "returned_bytes": hop.used * returned_times,
            "driver_s": driver + taken,
            "die_s": max(0.0, hop.there) * parts_here / parts,
            "wire_s": (hop.sent * sent_times + hop.used * returned_times) / wire_rate,
        }
    return hops


def text(measured: dict[int, dict[str, Hop]], large: dict[str, dict[str, float]], options: argparse.Namespace) -> str:
    lines = []
    for dies, hops in measured.items():
        lines.append(f"\n{dies} dies, {pipeline_of(dies)} stages")
        lines.append("                        sent  returned     kept     cut     put   there    back    join  between")
        for name, hop in hops.items():
            size = "".join(f"{value / GIB:6.2f} GiB" for value in (hop.sent, hop.received, hop.used))
            spans = "".join(f"{one:8.2f}" for one in (hop.cut, hop.put, hop.there, hop.back, hop.join, hop.around))
            lines.append(f"  {name:20s}{size}{spans}")
    lines.append(
        f"\n{DIES} dies, {PIPELINE} stages, {DIES // DIES_PER_NODE} nodes, the driver's at {options.link:g} Gbit/s"
    )
    lines.append("                         sent   returned  driver      a die    wire")
    for name, values in large.items():
        size = "".join(f"{values[key] / GIB:7.2f} GiB" for key in ("sent_bytes", "returned_bytes"))
        spans = "".join(f"{values[key]:8.2f} s" for key in ("driver_s", "die_s", "wire_s"))
        lines.append(f"  {name:20s}{size}{spans}")
    seconds = total(large)
    lines.append(f"  a step: {seconds:.1f} s, {seconds / options.step:.1%} of {options.step:g} s")
    return "\n".join(lines)


def total(large: dict[str, dict[str, float]]) -> float:
    return sum(values[key] for values in large.values() for key in ("driver_s", "die_s", "wire_s"))


def main() -> int:
    """Measure on each number of dies in a process of its own, and print."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from recipe.signals import die_with_parent

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dies", type=int, nargs="+", default=[2, 4], metavar="N", help="even numbers (default: 2 4)")
    parser.add_argument("--prompts", type=int, default=512, help="of a step (default: 512)")
    parser.add_argument("--samples", type=int, default=16, help="answers to each (default: 16)")
    parser.add_argument("--prompt", type=int, default=PROMPT, help=f"padded tokens of a prompt (default: {PROMPT})")
    parser.add_argument("--response", type=int, default=RESPONSE, help=f"tokens of an answer (default: {RESPONSE})")
    parser.add_argument("--serialization", choices=("torch", "numpy"), nargs="+", default=["torch", "numpy"])
    parser.add_argument("--repeat", type=int, default=2, metavar="N", help="steps; the fastest counts (default: 2)")
    parser.add_argument("--store-gib", type=int, default=6, metavar="N", help="of Ray's object store (default: 6)")
    parser.add_argument("--link", type=float, default=100, metavar="GBIT", help="of the driver's node (default: 100)")
    parser.add_argument(
        "--step", type=float, default=1044.8, metavar="S", help="a whole step (default: 1044.8, published by r1_ascend)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if any(dies < 2 or dies % 2 for dies in options.dies):
        parser.error(f"--dies {' '.join(map(str, options.dies))}; expected even numbers: an engine has two dies")
    report: dict[str, Any] = {"options": vars(options)}
    if not options.json:
        sequences = options.prompts * options.samples
        print(f"{sequences} sequences of {options.prompt} + {options.response} tokens; seconds on this machine")
    for serialization in options.serialization:
        measured = {}
        for dies in sorted(set(options.dies)):
            with ProcessPoolExecutor(1, get_context("spawn"), die_with_parent) as process:
                measured[dies] = process.submit(measure, dies, serialization, options).result()
        large = at_true_size(measured, options.link)
        report[serialization] = {
            "dies": {str(dies): {name: asdict(hop) for name, hop in hops.items()} for dies, hops in measured.items()},
            "at_256": large,
            "at_256_s": total(large),
            "share_of_step": total(large) / options.step,
        }
        if not options.json:
            print(f"\nby {serialization}\n{text(measured, large, options)}", flush=True)
    if options.json:
        print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
