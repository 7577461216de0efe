# SPDX-License-Identifier: Apache-2.0
"""``torch.npu.streams``: streams and events of a device that does everything at once, on the calling thread.

A stream is an identity, an event a time. Missing waits, races and deadlocks of real streams do not show here.
"""

import time
from types import TracebackType
from typing import Any

import torch
from torch_npu.npu.devices import index_of


class Stream(torch.Stream):
    """A stream of an npu device (default: the current one)."""

    def __new__(cls, device: Any = None, priority: int = 0, **kwargs: Any) -> "Stream":
        if "stream_id" in kwargs:
            return super().__new__(cls, **kwargs)
        return super().__new__(cls, device=torch.device("npu", index_of(device)), priority=priority)

    @property
    def npu_stream(self) -> int:
        return self.stream_id

    @property
    def _as_parameter_(self) -> int:
        return self.stream_id

    def record_event(self, event: torch.Event | None = None) -> torch.Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def __enter__(self) -> "Stream":
        self._context = StreamContext(self)
        self._context.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._context.__exit__(*exc)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, torch.Stream) and (self.stream_id, self.device) == (other.stream_id, other.device)

    def __hash__(self) -> int:
        return hash((self.stream_id, self.device))

    def __repr__(self) -> str:
        return f"<torch.npu.Stream device={self.device} id={self.stream_id:#x}>"


class SyncLaunchStream(Stream):
    """A stream like every other here."""


class Event(torch.Event):
    """An event: a time of the host clock. Torch's own ``elapsed_time`` refuses subclasses, so the time is kept here."""

    def __new__(
        cls, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False, external: bool = False
    ) -> "Event":
        device = torch.device("npu", index_of())
        event = super().__new__(
            cls, device=device, enable_timing=enable_timing, blocking=blocking, interprocess=interprocess
        )
        event._timed = enable_timing
        event._nanoseconds = None
        return event

    def record(self, stream: torch.Stream | None = None) -> None:
        super().record(current_stream() if stream is None else stream)
        self._nanoseconds = time.perf_counter_ns()

    def elapsed_time(self, end_event: "Event") -> float:
        """Milliseconds from this event to ``end_event``; both need ``enable_timing=True`` and must be recorded."""
        if not (self._timed and end_event._timed):
            raise ValueError("both events must be created with enable_timing=True")
        if self._nanoseconds is None or end_event._nanoseconds is None:
            raise ValueError("both events must be recorded before their distance is asked for")
        return (end_event._nanoseconds - self._nanoseconds) / 1e6


class ExternalEvent(Event):
    """An event that other streams reset; all events here are reached at once."""

    def __new__(cls) -> "ExternalEvent":
        return super().__new__(cls)

    def reset(self, stream: Any = None) -> None:
        pass


def _wrap(stream: torch.Stream) -> Stream:
    return Stream(stream_id=stream.stream_id, device_index=stream.device_index, device_type=stream.device_type)


def current_stream(device: Any = None) -> Stream:
    return _wrap(torch.accelerator.current_stream(torch.device("npu", index_of(device))))


def default_stream(device: Any = None) -> Stream:
    current = current_stream(device)
    return Stream(stream_id=0, device_index=current.device_index, device_type=current.device_type)


def set_stream(stream: torch.Stream | None) -> None:
    """Make a stream (and its device) current; None changes nothing."""
    if stream is not None:
        torch.accelerator.set_stream(stream)


class StreamContext:
    """Context manager: another current stream (and its device) inside; None changes nothing."""

    def __init__(self, stream: torch.Stream | None) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        if self.stream is not None:
            self.previous_device = index_of()
            self.previous = current_stream(self.stream.device)
            set_stream(self.stream)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.stream is not None:
            set_stream(self.previous)
            torch.accelerator.set_device_index(self.previous_device)


def stream(stream: torch.Stream | None) -> StreamContext:
    return StreamContext(stream)
