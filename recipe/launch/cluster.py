# SPDX-License-Identifier: Apache-2.0
"""The head's part in a run of several nodes: its Ray, the meeting of the nodes, and the end of both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recipe import preflight
from recipe.clock import Clock
from recipe.launch.errors import STOPPED, TrainingStopped
from recipe.launch.meeting import Meeting
from recipe.launch.network import require_answer
from recipe.launch.node import Place, present
from recipe.launch.processes import end_all
from recipe.launch.ray_logs import keep_ray_logs
from recipe.launch.ray_node import RayNode, address_environment, authentication, start_command
from recipe.launch.ray_start import make_retry
from recipe.launch.supervisor import Watchdog
from recipe.preflight import Report
from recipe.recorder import NODES
from recipe.runfile.errors import ConfigError, LaunchError
from recipe.runfile.hydra import quote
from recipe.runfile.inherited import full_environment
from recipe.runfile.masking import scrubbed
from recipe.runfile.paths import RunPaths
from recipe.runfile.ports import head_ports
from recipe.runfile.schema import RunConfig

# A file that the head writes into the run's directory; a worker that reads the same content shares its storage.
RUN_MARK = ".run-id"


class Nodes:
    """What the head knows of the nodes that have joined (`recipe.launch.supervisor.Alarm`)."""

    def __init__(self, meeting: Meeting, ray: RayNode) -> None:
        self._meeting, self._ray = meeting, ray

    def __call__(self) -> str | None:
        return self._meeting.alarm() or self._ray.problem()

    def heard_since(self, moment: float) -> bool:
        return self._meeting.heard_since(moment)


def require_ready(report: Report) -> None:
    """Say what preflight found; with an error in it, stop.

    Raises:
        ConfigError: there is one.
    """
    for finding in (*report.errors, *report.warnings):
        print(f"preflight: {finding.line}", flush=True)
    print(f"preflight: {report.summary}", flush=True)
    if not report.ok:
        raise ConfigError(
            f"preflight: {report.errors[0].line}"
            + (f" (and {len(report.errors) - 1} more, above)" if len(report.errors) > 1 else "")
            + "; the run was not started (docs/PREFLIGHT.md; --no-preflight goes on all the same)"
        )


class RayCluster:
    """The Ray that a driver joins.

    Args:
        config: the run.
        place: this node, which leads.
        token, token_file: the cluster's token, and where it lies.
        dashboard: whether Ray serves its dashboard, on 127.0.0.1 of this node.
        preflight: whether every node is asked before the run starts whether it can take part.
    """

    def __init__(
        self,
        config: RunConfig,
        place: Place,
        token: bytes,
        token_file: Path,
        dashboard: bool = False,
        preflight: bool = True,
    ) -> None:
        self._place, self._token, self._dashboard, self._preflight = place, token, dashboard, preflight
        self.interface = place.interface
        self.environment = address_environment(place.address, config.cluster.nodes) | authentication(token_file)
        # Where several nodes share a machine, the driver joins the Ray of the head.
        self.overrides = [f"+ray_kwargs.ray_init._node_ip_address={quote(place.address)}"]

    @contextmanager
    def formed(self, config: RunConfig, paths: RunPaths, environment: dict[str, str], clock: Clock) -> Iterator[Nodes]:
        """Within the block all nodes of the run are part of its Ray; yields the `Nodes` that tell when one is lost.

        At the end every node learns how the block ended, sends its logs to `nodes/NAME/` of the run directory, and
        stops its Ray.

        Raises:
            LaunchError: Ray did not start here, nodes are missing at the deadline, or preflight found an error.
        """
        cluster = config.cluster
        saves = config.run.save_every > 0
        for directory in (paths.run_dir, *([paths.checkpoints] if saves else [])):
            directory.mkdir(parents=True, exist_ok=True)
            (directory / RUN_MARK).write_text(paths.run_id, encoding="ascii")
        invitation = {"gcs": cluster.ray_address, "run_dir": str(paths.run_dir), "run_id": paths.run_id}
        invitation["checkpoints"] = str(paths.checkpoints) if saves else ""
        meeting = Meeting(
            own=present(config, self._place, self._token),
            port=head_ports(config)["the launchers' meeting"],
            token=self._token,
            nodes=cluster.nodes,
            expected=cluster.hosts,
            logs=paths.run_dir / NODES,
            say=clock.say,
        )
        command = start_command(
            config, self._place.name, self._place.address, self._place.ports, paths.ray_temp, None, self._dashboard
        )
        with Watchdog(paths), meeting:
            outcome = ("finished", "")
            try:
                clock.say(
                    f"starting Ray on {self._place.address}:{cluster.ray_port}, the head of {cluster.nodes} nodes"
                )
                ray = RayNode(
                    command, full_environment(environment, for_trainer=False), paths.run_dir / "logs" / "ray-start.log"
                )
                ray.wait_started(retry=make_retry(paths.run_id, paths.ray_temp, cluster.wait_deadline_s, clock.say))
                meeting.invite(invitation)
                if cluster.nodes > 1:
                    clock.say(f"waiting up to {cluster.wait_deadline_s} s for the other nodes")
                meeting.wait(cluster.wait_deadline_s, ray.problem)
                for node in meeting.nodes():
                    for name, port in node.daemons.items():
                        require_answer(node.address, port, f"Ray's {name} on node {node.name} ({node.host})")
                if self._preflight:
                    clock.say("asking every node whether the run can start on it")
                    # The question is asked by a process that takes Ray's token from the environment.
                    os.environ.update(self.environment)
                    require_ready(preflight.run(config, node=False, cluster=True))
                yield Nodes(meeting, ray)
            except TrainingStopped as error:
                outcome = (STOPPED, str(error))
                raise
            except LaunchError as error:
                outcome = ("failed", scrubbed(str(error), config.environment))
                raise
            except BaseException as error:
                outcome = ("failed", f"{type(error).__name__} at the head")
                raise
            finally:
                end_all(paths.run_id)
                unreached = meeting.part(*outcome)
                if unreached:
                    clock.say(f"no logs from {', '.join(unreached)}, which cannot be reached; they are on those nodes")
                if paths.ray_temp.is_dir():  # the driver never ran: its supervisor removes it otherwise
                    keep_ray_logs(paths)
