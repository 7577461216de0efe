# SPDX-License-Identifier: Apache-2.0
"""How a plain-torch function becomes a simulated NPU operator.

``@op()`` wraps a *body* that computes on CPU views of device memory (twin storage, no copy) and returns new
CPU tensors:

* every tensor argument must live on one ``npu`` device, except those named in ``host``, which must be on the CPU (the
  arguments that CANN and ATB read on the host);
* writes of the body into its arguments are writes to device memory (caches, ``out`` buffers);
* an argument returned by the body comes back as the caller's own tensor; every other result is wrapped as a device
  tensor and accounted, so a body must never return a *view* of an argument;
* where the strict level is on, the call is held against the operator's limits (:mod:`torch_npu.limits`) first;
* ``trained=True`` makes the operator differentiable: one autograd node keeps the inputs only and runs the body again in
  backward, which gives the memory footprint of a fused kernel. Without it a call that would need a gradient raises.

Calls are counted per operator name, so that a test can assert that the fused operator really ran.
"""

import functools
import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch_npu.limits import strictness

CALLS: Counter[str] = Counter()
"""Calls per operator name in this process since the last :func:`reset_counts`."""

_sim: Any = None


def sim() -> Any:
    """The C++ device module (``as_cpu``, ``as_npu``), imported at first use."""
    global _sim
    if _sim is None:
        from torch_npu import _sim as module

        _sim = module
    return _sim


def counts() -> dict[str, int]:
    """Calls per operator name."""
    return dict(CALLS)


def reset_counts() -> None:
    """Forget all counts."""
    CALLS.clear()


class _Slot:
    """Place of tensor ``index`` in a call whose tensors travel separately through autograd."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


class _Call:
    """Moves the tensors of one operator call to the CPU side and its results back."""

    __slots__ = ("device", "grad", "host", "op", "originals")

    def __init__(self, op: str, host: frozenset[str]) -> None:
        self.op, self.host = op, host
        self.device: int | None = None
        self.grad = False
        self.originals: list[tuple[Tensor, Tensor]] = []

    def place(self, name: str, tensor: Tensor) -> bool:
        """Check the tensor's device; True when it is device memory."""
        device = tensor.device
        if name in self.host:
            if device.type != "cpu":
                raise RuntimeError(f"{self.op}: {name} is read on the host and must be a cpu tensor, found {device}")
            return False
        if device.type != "npu":
            raise RuntimeError(f"{self.op}: {name} is on {device}, expected an npu tensor; move it with .npu()")
        if self.device is None:
            self.device = device.index
        elif device.index != self.device:
            raise RuntimeError(
                f"{self.op}: expected all tensors on one device, found npu:{self.device} and {device} ({name})"
            )
        return True

    def to_cpu(self, name: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            if not self.place(name, value):
                return value
            if value.requires_grad:
                self.grad = True
            view = sim().as_cpu(value.detach() if value.requires_grad else value)
            self.originals.append((view, value))
            return view
        if type(value) in (list, tuple) and value and isinstance(value[0], Tensor):
            return [self.to_cpu(name, item) for item in value]
        return value

    def to_npu(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            for view, original in self.originals:
                if value is view:
                    return original
            return sim().as_npu(value if value.is_contiguous() else value.contiguous(), self.device)
        if isinstance(value, tuple):
            return tuple(self.to_npu(item) for item in value)
        if isinstance(value, list):
            return [self.to_npu(item) for item in value]
        return value


def _take_tensors(value: Any, tensors: list[Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors.append(value)
        return _Slot(len(tensors) - 1)
    if isinstance(value, (list, tuple)):
        return [_take_tensors(item, tensors) for item in value]
    return value


def _put_tensors(value: Any, tensors: list[Tensor]) -> Any:
    if isinstance(value, _Slot):
        return tensors[value.index]
    if isinstance(value, list):
        return [_put_tensors(item, tensors) for item in value]
    return value


class _Replay(torch.autograd.Function):
    """One autograd node per operator: forward runs the body, backward runs it again with gradients on."""

    @staticmethod
    def forward(ctx: Any, body: Callable, template: list, device: int, *tensors: Tensor) -> Any:
        ctx.body, ctx.template, ctx.device = body, template, device
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        call = _Call("", frozenset())
        call.device = device
        args, kwargs = _unpack(_put_tensors(template, [_view(t) for t in tensors]))
        outputs = body(*args, **kwargs)
        ctx.single = isinstance(outputs, Tensor)
        results = tuple(call.to_npu(o) for o in ((outputs,) if ctx.single else outputs))
        ctx.mark_non_differentiable(*[r for r in results if isinstance(r, Tensor) and not r.is_floating_point()])
        return results[0] if ctx.single else results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        views = [_view(t).detach() for t in ctx.saved_tensors]
        wanted = [i for i, view in enumerate(views) if ctx.needs_input_grad[i + 3]]
        for i in wanted:
            views[i].requires_grad_()
        args, kwargs = _unpack(_put_tensors(ctx.template, views))
        with torch.enable_grad():
            outputs = ctx.body(*args, **kwargs)
        outputs = (outputs,) if ctx.single else outputs
        used = [
            (o, _view(g))
            for o, g in zip(outputs, grads, strict=True)
            if isinstance(o, Tensor) and o.requires_grad and g is not None
        ]
        gradients = torch.autograd.grad(
            [o for o, _ in used], [views[i] for i in wanted], [g for _, g in used], allow_unused=True
        )
        result: list[Tensor | None] = [None] * len(views)
        for i, grad in zip(wanted, gradients, strict=True):
            result[i] = None if grad is None else sim().as_npu(grad.contiguous(), ctx.device)
        return (None, None, None, *result)


def _view(tensor: Tensor) -> Tensor:
    return sim().as_cpu(tensor.detach())


def _unpack(packed: list) -> tuple[list, dict]:
    args, names, values = packed
    return args, dict(zip(names, values, strict=True))


def op(
    name: str | None = None, *, trained: bool = False, host: tuple[str, ...] = (), grad_body: Callable | None = None
) -> Callable[[Callable], Callable]:
    """Decorator that turns a body on CPU tensors into a simulated operator (module docstring).

    Args:
        name: name that is counted and shown in errors; the body's own by default.
        trained: whether gradients flow through the operator.
        host: arguments that must be CPU tensors.
        grad_body: body to differentiate in backward when the forward body rounds in the middle (same signature).
    """

    def decorate(body: Callable) -> Callable:
        label = name or body.__name__
        signature = inspect.signature(body)
        names = list(signature.parameters)
        on_host = frozenset(host)
        replayed = grad_body or body

        def run_forward(*args: Any, **kwargs: Any) -> Any:
            # Function.forward runs with grad mode off and backward with it on: that tells the two runs apart.
            return (replayed if torch.is_grad_enabled() else body)(*args, **kwargs)

        @functools.wraps(body)
        def call(*args: Any, **kwargs: Any) -> Any:
            CALLS[label] += 1
            if not torch.autograd._profiler_enabled():
                return compute(args, kwargs)
            with torch.autograd.profiler.record_function(f"npu::{label}"):
                return compute(args, kwargs)

        def compute(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            moved = _Call(label, on_host)
            to_cpu = moved.to_cpu
            if len(args) > len(names):
                raise TypeError(f"{label}: takes {len(names)} arguments, {len(args)} were given")
            if strictness.limited(label):
                bound = signature.bind(*args, **kwargs)
                bound.apply_defaults()
                strictness.check(label, bound.arguments)
            positional = [to_cpu(names[i], value) for i, value in enumerate(args)]
            keyword = {key: to_cpu(key, value) for key, value in kwargs.items()}
            if moved.device is None:
                raise RuntimeError(f"{label}: found no npu tensor among the arguments")
            if moved.grad and torch.is_grad_enabled():
                if not trained:
                    raise NotImplementedError(f"{label} (simulated NPU) has no backward: call it under torch.no_grad()")
                tensors: list[Tensor] = []
                template = [
                    _take_tensors(list(args), tensors),
                    list(kwargs),
                    _take_tensors(list(kwargs.values()), tensors),
                ]
                return _Replay.apply(run_forward, template, moved.device, *tensors)
            return moved.to_npu(body(*positional, **keyword))

        call.npu_op = label  # type: ignore[attr-defined]  # functions carry attributes; tests and A's installer read it
        return call

    return decorate
