# SPDX-License-Identifier: Apache-2.0
"""A worker's part in a run of several nodes: it presents itself at the head and runs its node's Ray until the end."""

from __future__ import annotations

import dataclasses
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from recipe.clock import Clock
from recipe.launch.channel import SILENCE_S, Channel, shake_hands
from recipe.launch.cluster import RUN_MARK
from recipe.launch.errors import STOPPED, BrokenChannelError, ChannelError, TrainingStopped
from recipe.launch.leftovers import end_former, noted
from recipe.launch.messages import from_head
from recipe.launch.network import require_answer
from recipe.launch.node import Place, present
from recipe.launch.node_logs import chunks
from recipe.launch.processes import end_all
from recipe.launch.ray_logs import keep_ray_logs
from recipe.launch.ray_node import RayNode, address_environment, authentication, start_command
from recipe.launch.ray_start import make_retry
from recipe.launch.sampler import Sampler
from recipe.launch.supervisor import Watchdog
from recipe.launch.temporary import run_temp
from recipe.recorder import NODES
from recipe.runfile.derive import derive_run
from recipe.runfile.errors import Interrupted, LaunchError
from recipe.runfile.inherited import full_environment
from recipe.runfile.paths import RunPaths, run_directory
from recipe.runfile.ports import head_ports
from recipe.runfile.schema import RunConfig
from recipe.stopping import StopSignals

POLL_S = 0.2
# How long a file that the head has written may take to be seen on shared storage.
SIGHT_S = 5.0


def work(config: RunConfig, place: Place, token: bytes, token_file: Path, clock: Clock) -> None:
    """Take part in the run until its end.

    Raises:
        TrainingStopped: the head's watch over the training ended the run.
        LaunchError: the head was not reached, turned this node away, is gone, or the run failed; or this node's Ray
            ended.
        Interrupted: a stop signal arrived.

    In every case this node's Ray is gone when this returns.
    """
    port = head_ports(config)["the launchers' meeting"]
    with StopSignals() as stop:
        channel = _reach(place.head, port, token, config.cluster.wait_deadline_s, stop, clock)
        head = _Head(channel, f"{place.head}:{port}", stop)
        try:
            channel.send({"node": dataclasses.asdict(present(config, place, token))})
            head.wait("admitted")
            clock.say(f"{place.name}: the head at {place.head} knows this node; waiting for its Ray")
            invitation = head.wait("join")
            _take_part(config, place, invitation, head, token_file, clock)
        except ChannelError as error:
            raise LaunchError(f"the head at {place.head} is gone: {error}") from None
        except Interrupted as error:
            head.tell_lost(str(error))
            raise
        finally:
            channel.close()


class _Head:
    """The connection to the head, as a worker uses it; a stop signal ends every wait."""

    def __init__(self, channel: Channel, where: str, stop: StopSignals) -> None:
        self.channel, self._where, self._stop = channel, where, stop
        self.over: dict[str, Any] | None = None

    def attend(self) -> dict[str, Any] | None:
        """The head's next message, if one comes within a moment.

        Raises:
            ChannelError: it is gone.
            Interrupted: a stop signal arrived.
            LaunchError: it turned this node away.
        """
        if self._stop.number is not None:
            raise Interrupted(self._stop.number)
        message = self._listen()
        if message is not None and message["kind"] == "refused":
            raise LaunchError(f"the head at {self._where} turned this node away: {message['text']}")
        return message

    def _listen(self) -> dict[str, Any] | None:
        message = from_head(self.channel.receive(POLL_S))
        self.channel.beat()
        if message is not None and message["kind"] == "over":
            self.over = message
        return message

    def tell_lost(self, text: str) -> None:
        """Tell the head why this node takes no part, or has stopped taking part."""
        with suppress(ChannelError):
            if self.over is None:
                self.channel.send({"kind": "lost", "text": text})

    def await_end(self) -> None:
        """Wait until the head says that the run is over, as it does when a node is lost: it still wants the logs."""
        end = time.monotonic() + SILENCE_S
        with suppress(ChannelError):
            while self.over is None and time.monotonic() < end:
                self._listen()

    def wait(self, kind: str) -> dict[str, Any]:
        """Wait for the next message of a kind.

        Raises:
            LaunchError: the run is over before.
        """
        while True:
            message = self.attend()
            if self.over is not None:
                raise LaunchError(f"the run ended before this node took part: {self.over['text']}")
            if message is not None and message["kind"] == kind:
                return message


def _reach(head: str, port: int, token: bytes, deadline_s: float, stop: StopSignals, clock: Clock) -> Channel:
    end, announced = time.monotonic() + deadline_s, False
    while True:
        try:
            return shake_hands(socket.create_connection((head, port), timeout=5.0), token, server=False)
        except BrokenChannelError as error:  # the head has many callers, or is another program
            reason = str(error)
        except ChannelError as error:
            raise LaunchError(f"the head at {head}:{port} cannot be talked to: {error}") from None
        except OSError as error:
            reason = error.strerror or str(error)
        if stop.number is not None:
            raise Interrupted(stop.number)
        if time.monotonic() > end:
            raise LaunchError(
                f"no head at {head}:{port} for {deadline_s:.0f} s ({reason}); is the launcher running there with the "
                "same run file, and is the port open?"
            )
        if not announced:
            announced = True
            clock.say(f"waiting up to {deadline_s:.0f} s for the head at {head}:{port} ({reason})")
        time.sleep(1.0)


def _take_part(
    config: RunConfig, place: Place, invitation: dict[str, Any], head: _Head, token_file: Path, clock: Clock
) -> None:
    try:
        _require_usable(invitation)
    except LaunchError as error:
        head.tell_lost(str(error))
        raise
    run_dir = run_directory(config)
    shared = str(run_dir) == invitation["run_dir"] and _sees(run_dir, invitation["run_id"])
    # A mark of its own: several nodes may be on one machine, and each ends its own processes only.
    mark = f"{config.run.name}-{secrets.token_hex(6)}"
    own_dir = run_dir / NODES / place.name
    (own_dir / "logs").mkdir(parents=True, exist_ok=True)
    end_former(own_dir, clock.say)
    with run_temp() as temp:
        paths = RunPaths(own_dir, mark, temp)
        with noted(paths):
            _run_ray(config, place, invitation, head, token_file, clock, paths, shared)
    assert head.over is not None
    if head.over["status"] == STOPPED:
        raise TrainingStopped(head.over["text"])
    if head.over["status"] != "finished":
        raise LaunchError(f"the run failed: {head.over['text']}")
    clock.say(f"{place.name}: the run has finished")


def _run_ray(
    config: RunConfig,
    place: Place,
    invitation: dict[str, Any],
    head: _Head,
    token_file: Path,
    clock: Clock,
    paths: RunPaths,
    shared: bool,
) -> None:
    """Run this node's Ray until the head says that the run is over, then send its logs unless the head sees them
    (`shared`)."""
    environment = derive_run(config, paths=paths, interface=place.interface).environment
    environment |= address_environment(place.address, config.cluster.nodes) | authentication(token_file)
    command = start_command(
        config, place.name, place.address, place.ports, paths.ray_temp, invitation["gcs"], dashboard=False
    )
    reached = True
    with Watchdog(paths) as watchdog, _ray(command, full_environment(environment, for_trainer=False), paths) as ray:
        try:
            limit_s = config.cluster.wait_deadline_s
            ray.wait_started(
                _alarm(head), make_retry(paths.run_id, paths.ray_temp, limit_s, partial(_note, head, clock))
            )
            head.channel.send({"kind": "ready"})
            clock.say(f"{place.name} has joined Ray at {invitation['gcs']}; logs in {paths.run_dir / 'logs'}")
            while head.over is None:
                head.attend()
                watchdog.tend()
                problem = ray.problem()
                if problem is not None:
                    raise LaunchError(problem)
        except ChannelError:
            reached = False
            raise
        except LaunchError as error:
            head.tell_lost(str(error))
            head.await_end()
            raise
        finally:
            end_all(paths.run_id)
            keep_ray_logs(paths)
            if reached:
                _part(head, None if shared else paths.run_dir)


def _require_usable(invitation: dict[str, Any]) -> None:
    """Require that this node reaches the head's Ray and sees the directory of checkpoints, to which every node writes.

    Raises:
        LaunchError: one of the two is not so.
    """
    address, _, port = invitation["gcs"].rpartition(":")
    require_answer(address, int(port), "Ray's GCS on the head")
    checkpoints = invitation["checkpoints"]
    if checkpoints and not _sees(Path(checkpoints), invitation["run_id"]):
        raise LaunchError(
            f"{checkpoints} is not the head's directory of that name: every node writes its part of each checkpoint "
            "there; put [run] checkpoint_dir on storage that all nodes share"
        )


@contextmanager
def _ray(command: list[str], environment: dict[str, str], paths: RunPaths) -> Iterator[RayNode]:
    ray = RayNode(command, environment, paths.run_dir / "logs" / "ray-start.log")
    sampler = Sampler(paths)
    try:
        yield ray
    finally:
        sampler.stop()
        end_all(paths.run_id)
        paths.slots.unlink(missing_ok=True)


def _alarm(head: _Head) -> Callable[[], str | None]:
    """Listens to the head while Ray starts, and tells what is wrong."""

    def alarm() -> str | None:
        head.attend()
        return None if head.over is None else f"the run ended before this node took part: {head.over['text']}"

    return alarm


def _note(head: _Head, clock: Clock, text: str) -> None:
    """Print a line here, and have the head print it."""
    clock.say(text)
    head.channel.send({"kind": "note", "text": text})


def _part(head: _Head, logs: Path | None) -> None:
    """Send the logs, where the head does not see them, and say goodbye."""
    with suppress(ChannelError, OSError):
        if logs is not None:
            for message in chunks(logs):
                head.channel.send(message)
        head.channel.send({"kind": "done"})


def _sees(directory: Path, run_id: str) -> bool:
    """Whether the head's mark is in `directory`; waits a little, as a file server may show it late."""
    end = time.monotonic() + SIGHT_S
    while True:
        with suppress(OSError):
            if (directory / RUN_MARK).read_text(encoding="ascii") == run_id:
                return True
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
