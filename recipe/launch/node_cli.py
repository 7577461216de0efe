# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe node RUN.toml`: this machine's part in a run; scripts/launch.sh calls it on every node."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path

from recipe.launch.options import add_resume_options, add_run_options, read_config, read_resume_request

TEXT = "this machine's part in a run on one or several nodes: preflight, Ray, the run, its logs, and the end of it all"
DETAILS = """\
The same command on every node: the one that has the head's address leads, every other one is a worker.

examples:
  scripts/launch.sh configs/a3_256die.toml                          on every node; [cluster] head names the head
  scripts/launch.sh configs/a3_256die.toml --head 10.0.0.1          another head than the run file's
  scripts/launch.sh configs/a3_256die.toml --interface enp66s0f0    where the way to the head is not the right network
  scripts/launch.sh configs/a3_256die.toml -- trainer.log_val_generations=8    a setting of verl, on every node

exit code: 0 the run finished, now or before; 1 it failed, or a node was missing or lost; 2 a mistake in the run file or
the options; 3 the watch over the training stopped it (docs/WATCH.md); 130, 143 stopped by Ctrl-C or SIGTERM. A terminal
that is closed does not stop it.
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `node` command."""
    parser = subparsers.add_parser(
        "node", help=TEXT, description=TEXT + ".", epilog=DETAILS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_options(parser)
    parser.add_argument("--head", metavar="ADDRESS", help="address or name of the head, instead of the run file's")
    parser.add_argument(
        "--worker", action="store_true", help="a worker, even though the head's address is this machine's"
    )
    parser.add_argument("--address", help="this node's own address (default: the one from which the head is reached)")
    parser.add_argument("--interface", help="network interface between the nodes, instead of the run file's")
    parser.add_argument("--node-name", metavar="NAME", help="name of this node (default: its address)")
    parser.add_argument("--ports", type=int, metavar="FIRST", help="first of this node's ports (default: ray_port + 2)")
    parser.add_argument("--deadline", type=int, metavar="SECONDS", help="how long to wait for the other nodes")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE",
        help="the cluster's token, the same on all nodes; the head makes it (default: $RECIPE_TOKEN_FILE, else "
        ".token in the directory of runs)",
    )  # fmt: skip
    parser.add_argument("--dashboard", action="store_true", help="serve Ray's dashboard, on 127.0.0.1 of the head")
    add_resume_options(parser)
    parser.add_argument("--no-preflight", action="store_true", help="do not check this machine and the run file first")
    parser.set_defaults(handler=_node)


def _node(options: argparse.Namespace) -> int:
    from recipe.signals import quit_on_stop_signals

    quit_on_stop_signals()
    from recipe.command import run_command
    from recipe.runfile.paths import runs_dir

    return run_command(lambda: _take_part(options), runs_dir())


def _take_part(options: argparse.Namespace) -> None:
    from recipe.clock import Clock
    from recipe.launch.cluster import RayCluster, require_ready
    from recipe.launch.cluster_token import read_token
    from recipe.launch.node import find_place, require_free_ports
    from recipe.launch.ray_node import authentication, require_dashboard
    from recipe.launch.run import launch
    from recipe.launch.worker import work
    from recipe.preflight import run as preflight
    from recipe.runfile.derive import derive_run
    from recipe.runfile.errors import ConfigError
    from recipe.runfile.paths import run_directory
    from recipe.runfile.typed_toml import checked
    from recipe.stopping import raise_on_stop_signals

    raise_on_stop_signals()
    clock = Clock(sys.stdout)
    config = read_config(options)
    if config.cluster.own_ray:
        several = ("head", "worker", "address", "interface", "ports", "node_name", "deadline", "token_file")
        unfit = [name.replace("_", "-") for name in (*several, "dashboard") if getattr(options, name)]
        if unfit:
            raise ConfigError(
                f"--{unfit[0]} is for runs on several nodes, and [cluster] nodes of {options.config} is 1; leave it "
                "out, or set nodes"
            )
        if not options.no_preflight:
            require_ready(preflight(config, node=True))
        launch(config, options.config, request=read_resume_request(options))
        return
    derived = derive_run(config)
    _ = derived.architecture, derived.passed  # what cannot be trained is refused on every node, before anyone waits
    for key, option in (("wait_deadline_s", "deadline"), ("ray_port", "ports")):
        if getattr(options, option) is not None:
            checked(type(config.cluster), key, getattr(options, option), f"--{option}")
    place = find_place(
        config,
        head=options.head,
        worker=options.worker,
        address=options.address,
        interface=options.interface,
        name=options.node_name,
        ports=options.ports,
    )
    deadline = options.deadline or config.cluster.wait_deadline_s
    interface = options.interface or config.cluster.interface
    cluster = dataclasses.replace(config.cluster, head=place.head, interface=interface, wait_deadline_s=deadline)
    config = dataclasses.replace(config, cluster=cluster)
    role = "head" if place.leads else "worker"
    if place.leads and options.dashboard:
        require_dashboard()
    clock.say(f"{place.name}: {role} of a run on {config.cluster.nodes} nodes; {place.address} on {place.interface}")
    if not options.no_preflight:
        require_ready(preflight(config, node=True, base_port=options.ports))
    require_free_ports(config, place, options.dashboard)
    token_file = options.token_file or Path(
        os.environ.get("RECIPE_TOKEN_FILE", run_directory(config).parent / ".token")
    )
    token_file = token_file.expanduser().absolute()
    token = read_token(token_file, place.leads, config.cluster.wait_deadline_s, clock.say)
    if not authentication(token_file):
        clock.say("warning: this Ray has no authentication (2.52 and later have); whoever reaches its ports can use it")
    if place.leads:
        formed = RayCluster(config, place, token, token_file, options.dashboard, not options.no_preflight)
        launch(config, options.config, formed, read_resume_request(options))
    else:
        work(config, place, token, token_file, clock)
