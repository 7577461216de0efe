# SPDX-License-Identifier: Apache-2.0
"""torch's own operator database on the simulated NPU: every entry equals the CPU, is refused by name, or is a fault.

    OMP_NUM_THREADS=1 python benchmarks/npu_sim_opinfo.py [--dtypes float32 bfloat16 complex64] [--only NAME ...]

Entries run in a worker process, so that one that ends the process is counted as a crash and the next ones still run. An
entry is tried in these ways, each with its first samples: called; in place; with ``out=``; on lazily negated and, for
complex numbers, lazily conjugated arguments; and backward. The exit status is 0 when nothing is wrong or crashed.
"""

import argparse
import itertools
import json
import select
import signal
import subprocess
import sys
import unittest
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch_npu  # noqa: F401
from torch.utils._pytree import tree_flatten, tree_map

# torch's test library wants the package expecttest for one base class, which the database does not use.
_stand_in = ModuleType("expecttest")
_stand_in.TestCase = unittest.TestCase  # type: ignore[attr-defined]  # filling a stand-in module
sys.modules.setdefault("expecttest", _stand_in)
from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402

DTYPES = ("float32", "bfloat16", "complex64")
SAMPLES = 2  # of each entry
PROCESSOR_SECONDS, SECONDS = 120, 1800  # an entry that takes longer, of either, counts as a crash
# Uninitialised memory, or numbers drawn in another order than on the CPU: only type and shape can be compared.
ARBITRARY = {
    "empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided",
}  # fmt: skip
# torch wants the arguments after the first on the CPU, whatever the device.
STAYS_ON_CPU = {"tensor_split"}
REFUSED = ("not supported on the simulated NPU", "no CPU kernel", "Could not run 'aten::", "only strided tensors")


@dataclass(frozen=True)
class Verdict:
    """An entry is ``ok``, ``refused``, ``wrong``, a ``crash`` or, where no sample runs, ``not on the CPU``."""

    kind: str
    reason: str = ""


def to_npu(tensor: torch.Tensor) -> torch.Tensor:
    """The same bytes with the same strides, offset, and conjugate and negative bits on the device."""
    if tensor.layout != torch.strided:
        return tensor.npu()
    with torch.no_grad():
        bytes_of_storage = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
        storage = bytes_of_storage.npu().untyped_storage()
        moved = torch.empty(0, dtype=tensor.dtype, device="npu")
        moved.set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())
        if tensor.is_conj():
            moved = torch._conj(moved)
        if tensor.is_neg():
            moved = torch._neg_view(moved)
    return moved.requires_grad_(tensor.requires_grad)


def on_npu(value: Any) -> Any:
    """A sample of the database with its CPU tensors and devices replaced."""

    def replace(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return to_npu(leaf)
        if leaf == "cpu" or (isinstance(leaf, torch.device) and leaf.type == "cpu"):
            return "npu"
        return leaf

    return tree_map(replace, value)


def clones(value: Any) -> Any:
    """The same tree with other tensors, for calls that write into their arguments."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, value)


def lazily(change: Callable[[torch.Tensor], torch.Tensor], sample: Any, dtype: torch.dtype) -> Any:
    """The sample with each of its tensors of this dtype replaced by a lazy view of the same numbers.

    A tensor that shows part of its storage only is left as it is, since as_strided reads the rest.
    """

    def replace(leaf: Any) -> Any:
        whole = (
            isinstance(leaf, torch.Tensor)
            and leaf.layout == torch.strided
            and leaf.dtype == dtype
            and leaf.untyped_storage().nbytes() == leaf.nbytes
        )
        return change(leaf) if whole else leaf

    return sample.transform(replace)


def called(op: Any, sample: Any) -> Any:
    return op.op(sample.input, *sample.args, **sample.kwargs)


def called_in_place(op: Any, sample: Any) -> Any:
    target = clones(sample.input)
    op.inplace_variant(target, *sample.args, **sample.kwargs)
    return target


def called_with_out(op: Any, sample: Any) -> Any:
    out = tree_map(torch.empty_like, called(op, sample))
    op.op(sample.input, *sample.args, **sample.kwargs, out=out)
    return out


def backward(op: Any, sample: Any) -> Any:
    """Gradients of all arguments; that of a complex result comes in as a lazy conjugate, as autograd's often do."""
    result = sample.output_process_fn_grad(called(op, sample))
    outputs = [t for t in tree_flatten(result)[0] if isinstance(t, torch.Tensor) and t.requires_grad]
    leaves = [
        t
        for t in tree_flatten((sample.input, sample.args, sample.kwargs))[0]
        if isinstance(t, torch.Tensor) and t.requires_grad
    ]
    above = []
    for t in outputs:
        slopes = torch.linspace(0.5, 1.5, t.numel()).reshape(t.shape).to(t.device)
        above.append(torch.complex(slopes, -slopes).to(t.dtype).conj() if t.is_complex() else slopes.to(t.dtype))
    return torch.autograd.grad(outputs, leaves, above, allow_unused=True)


@dataclass(frozen=True)
class Way:
    """One way to try an entry: the call, the entries it is for, and what is done to the device's arguments before."""

    name: str
    call: Callable[[Any, Any], Any]
    suits: Callable[[Any, torch.dtype], bool] = lambda op, dtype: True
    change: Callable[[torch.Tensor], torch.Tensor] | None = None
    gradients: bool = False


FORWARD = Way("forward", called)
BACKWARD = Way(
    "backward",
    backward,
    lambda op, dtype: op.supports_autograd and dtype in op.supported_backward_dtypes("cpu"),
    gradients=True,
)
WAYS = (
    FORWARD,
    Way("in place", called_in_place, lambda op, dtype: op.inplace_variant is not None),
    Way("out=", called_with_out, lambda op, dtype: op.supports_out),
    Way("negated", called, lambda op, dtype: op.test_neg_view, lambda t: torch._neg_view(t.neg())),
    Way(
        "conjugated",
        called,
        lambda op, dtype: op.test_conjugated_samples and dtype.is_complex,
        lambda t: torch._conj(t.conj_physical()),
    ),
    BACKWARD,
)


def samples_of(op: Any, dtype: torch.dtype, gradients: bool = False) -> list[Any]:
    """The first samples of an entry; the database's own ``sample_inputs`` walks the whole stack for each of them."""
    torch.manual_seed(1)
    return list(itertools.islice(op.sample_inputs_func(op, "cpu", dtype, gradients), SAMPLES))


def moved_sample(op: Any, sample: Any) -> Any:
    moved = sample.transform(lambda leaf: leaf)
    moved.input = on_npu(sample.input)
    if op.name not in STAYS_ON_CPU:
        moved.args, moved.kwargs = on_npu((sample.args, sample.kwargs))
    return moved


def difference(op: Any, expected: Any, result: Any) -> str:
    """What distinguishes the device's results from the CPU's; empty when nothing does."""
    on_cpu, moved = tree_flatten(expected)[0], tree_flatten(result)[0]
    if len(on_cpu) != len(moved):
        return f"{len(moved)} results instead of {len(on_cpu)}"
    for want, got in zip(on_cpu, moved, strict=True):
        if not isinstance(want, torch.Tensor):
            if want != got and not (want != want and got != got):
                return f"{got!r} instead of {want!r}"
            continue
        if got.device.type != "npu":
            return f"a result on {got.device}"
        try:
            if op.name in ARBITRARY:
                want, got = torch.zeros_like(want), torch.zeros_like(got)
            # bfloat16 has three digits, and the device rounds in the middle of operators that the CPU has in one piece
            tolerance = {"atol": 1.6e-2, "rtol": 1.6e-2} if want.dtype == torch.bfloat16 else {}
            torch.testing.assert_close(got.cpu(), want, equal_nan=True, **tolerance)
        except AssertionError as error:
            return " ".join(str(error).split())[:200]
    return ""


def fails_likewise(way: Way, op: Any, sample: Any, error: Exception) -> bool:
    """Whether the CPU raises the same error."""
    try:
        way.call(op, sample)
    except Exception as on_cpu:
        return repr(on_cpu) == repr(error)
    return False


def verdict_of(op: Any, dtype: torch.dtype, ways: tuple[Way, ...] = WAYS) -> Verdict:
    """Try an entry in all ways; the first fault counts, then the first refusal."""
    refusal, compared = "", 0
    for way in ways:
        if not way.suits(op, dtype):
            continue
        try:
            samples = samples_of(op, dtype, way.gradients)
        except Exception:  # some need packages that are not here
            continue
        for sample in samples:
            try:
                torch.manual_seed(1)
                expected = way.call(op, sample)
            except Exception:
                continue
            try:
                moved = moved_sample(op, sample)
                if way.change:
                    moved = lazily(way.change, moved, dtype)
                torch.manual_seed(1)
                found = difference(op, expected, way.call(op, moved))
            except NotImplementedError as error:
                if not any(text in str(error) for text in REFUSED):
                    return Verdict("wrong", f"{way.name}: {error!r}"[:300])
                refusal = refusal or f"{way.name}: " + " ".join(str(error).split(". ")[0].split())[:160]
                break
            except Exception as error:
                if way.change and fails_likewise(way, op, lazily(way.change, sample, dtype), error):
                    continue  # torch itself does not do this with lazy tensors
                return Verdict("wrong", f"{way.name}: " + " ".join(repr(error).split())[:300])
            if found:
                return Verdict("wrong", f"{way.name}: {found}")
            compared += 1
    if refusal:
        return Verdict("refused", refusal)
    return Verdict("ok") if compared else Verdict("not on the CPU")


def entries(dtype: torch.dtype) -> list[Any]:
    return [op for op in op_db if dtype in op.dtypes]


# ---------------------------------------------------------------- worker processes


def work(dtype: torch.dtype) -> None:
    """Read names of entries, answer each with a line of JSON."""
    by_name = {op.full_name: op for op in entries(dtype)}
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, PROCESSOR_SECONDS)
        verdict = verdict_of(by_name[line.strip()], dtype)
        print(json.dumps([verdict.kind, verdict.reason]), flush=True)


class Worker:
    """A process that tries entries of one dtype, started again when one of them has ended it."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.process: subprocess.Popen[str] | None = None

    def ask(self, name: str) -> Verdict:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", __file__, "--worker", self.dtype],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        process = self.process
        assert process.stdin and process.stdout
        process.stdin.write(name + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], SECONDS)
        answer = process.stdout.readline() if ready else ""
        if answer:
            return Verdict(*json.loads(answer))
        self.close()
        return Verdict(
            "crash", f"the process ended with status {process.returncode}" if ready else f"no answer in {SECONDS} s"
        )

    def close(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


def verdicts(dtype: str, only: list[str]) -> Iterator[tuple[str, Verdict]]:
    worker = Worker(dtype)
    try:
        for op in entries(getattr(torch, dtype)):
            if not only or op.name in only or op.full_name in only:
                yield op.full_name, worker.ask(op.full_name)
    finally:
        worker.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, help="default: %(default)s")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="entries, such as add or linalg.eig")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--worker", metavar="DTYPE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(getattr(torch, options.worker))
        return 0
    results = {dtype: dict(verdicts(dtype, options.only)) for dtype in options.dtypes}
    counts = {dtype: Counter(verdict.kind for verdict in found.values()) for dtype, found in results.items()}
    if options.json:
        rows = {dtype: {name: [v.kind, v.reason] for name, v in found.items()} for dtype, found in results.items()}
        print(json.dumps({"counts": counts, "verdicts": rows}))
    else:
        for dtype, found in results.items():
            for name, verdict in found.items():
                if verdict.kind != "ok":
                    print(f"{dtype}  {verdict.kind}  {name}  {verdict.reason}")
        print("\n| dtype | entries | ok | refused | wrong | crash | not on the CPU |\n|---|---|---|---|---|---|---|")
        for dtype, count in counts.items():
            cells = [count[kind] for kind in ("ok", "refused", "wrong", "crash", "not on the CPU")]
            print(f"| {dtype} | {sum(cells)} | " + " | ".join(map(str, cells)) + " |")
    return int(any(count["wrong"] or count["crash"] for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
