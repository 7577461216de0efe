# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe plan RUN.toml`: memory by phase, traffic and time of a step, and the smallest cluster."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from recipe.runfile.passed.option import add_settings
from recipe.text import printable

COMMANDS = ("plan",)
DETAILS = """\
Nothing is started, and neither torch nor a cluster is needed. docs/PLAN.md has every formula and how far to trust it.

examples:
  python -m recipe plan configs/a3_256die.toml
  python -m recipe plan configs/a3_256die.toml --prompt-tokens 175 --response-tokens 1385    means, for traffic and time
  python -m recipe plan configs/a3_256die.toml --expert-load 2    where a die's experts get twice their share of tokens
  python -m recipe plan --fit deepseek_v3_671b --hardware a3_128 > my_run.toml    the smallest cluster, as a run file
  python -m recipe plan --published    what others published beside the estimates, each step left out of its own fit

exit code: 0 planned, also when it does not fit (the plan says so); 2 a run file that cannot be planned, or a model that
--fit finds no cluster for
"""

SHARED = "/shared"
_FIT_NUMBERS = {
    "max-prompt-tokens": (1024, "longest prompt"),
    "max-response-tokens": (2048, "longest answer"),
    "prompts": (128, "prompts of a step"),
    "samples": (8, "answers to each"),
}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    text = "what a run file needs: memory by phase, traffic, time, nodes"
    plan = subparsers.add_parser(
        "plan", help=text, description=text + ".", epilog=DETAILS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    plan.add_argument("config", nargs="?", type=Path, metavar="RUN.toml", help="a run file: docs/CONFIG.md")
    plan.add_argument("--published", action="store_true", help="instead: published steps, and what is fitted to them")
    plan.add_argument(
        "--fit",
        metavar="MODEL",
        help="instead: a run file for the smallest cluster of --hardware that trains this model, a name that [model] "
        "architecture takes or a directory with config.json, converted or as published (a comment says how to convert "
        "it); prints it, with its plan as a comment",
    )
    plan.add_argument("--json", action="store_true", help="the whole plan as JSON, bytes and seconds")
    mean = "for traffic and time (default: the limit)"
    plan.add_argument("--prompt-tokens", type=float, metavar="N", help=f"mean prompt, {mean}")
    plan.add_argument("--response-tokens", type=float, metavar="N", help=f"mean answer, {mean}")
    plan.add_argument(
        "--expert-load",
        type=float,
        default=1.0,
        metavar="X",
        help="memory for a die whose experts are sent X times their even share of tokens",
    )
    fit = plan.add_argument_group("with --fit")
    fit.add_argument("--hardware", metavar="H", help="what its nodes are, as [cluster] hardware (default: this node's)")
    for name, (default, text) in _FIT_NUMBERS.items():
        fit.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{text} (default: {default})")
    fit.add_argument(
        "--host-memory-gib", type=float, metavar="GIB", help="memory of a node (default: that of the hardware)"
    )
    fit.add_argument(
        "--shared",
        default=SHARED,
        metavar="DIR",
        help="directory, seen by every node, of checkpoint, problems and runs (default: %(default)s)",
    )
    plan.add_argument("--no-search", action="store_true", help="leave the smallest cluster out")
    add_settings(plan)
    plan.set_defaults(handler=_plan)


def _plan(options: argparse.Namespace) -> int:
    from recipe.plan.page import as_json, as_text
    from recipe.plan.plan import make_plan
    from recipe.plan.subject import subject
    from recipe.runfile.config import load
    from recipe.runfile.derive import derive_run
    from recipe.runfile.errors import LaunchError

    if sum(map(bool, (options.published, options.fit, options.config))) != 1:
        print("error: expected RUN.toml, or --fit MODEL or --published without one", file=sys.stderr)
        return 2
    if options.fit:
        return _fit(options)
    if options.published:
        from recipe.plan import comparison

        tables = "\n".join([*comparison.constant_table(), "", *comparison.time_table()])
        print(json.dumps(comparison.as_json(), indent=2) if options.json else tables)
        return 0
    for name, above in (("prompt_tokens", 0.0), ("response_tokens", 0.0), ("expert_load", 0.999)):
        value = getattr(options, name)
        if value is not None and not above < value < float("inf"):
            least = "more than 0" if above == 0 else "1 or more"
            print(f"error: --{name.replace('_', '-')} is {value:g}; expected {least}", file=sys.stderr)
            return 2
    try:
        config = load(options.config, options.settings)
        _ = derive_run(config).passed  # it refuses what verl does not take
        run = dataclasses.replace(subject(config), expert_load=options.expert_load)
        made = make_plan(run, options.prompt_tokens, options.response_tokens, search=not options.no_search)
    except LaunchError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(as_json(made), indent=2) if options.json else as_text(made))
    return 0


def _fit(options: argparse.Namespace) -> int:
    from recipe.checks.finding import CannotTell
    from recipe.doctor.hardware import hardware_here
    from recipe.plan.fit import Wanted, fit
    from recipe.plan.fit_page import run_file
    from recipe.plan.page import as_json
    from recipe.plan.plan import make_plan
    from recipe.runfile.errors import LaunchError
    from recipe.runfile.schema import HARDWARE

    hardware = options.hardware
    numbers = {name: getattr(options, name.replace("-", "_")) for name in _FIT_NUMBERS}
    host = options.host_memory_gib
    wrong = [f"--{name} is {number}; expected 1 or more" for name, number in numbers.items() if number < 1]
    if hardware is not None and hardware not in HARDWARE:
        wrong.append(f"--hardware is {hardware!r}; expected one of {', '.join(HARDWARE)}")
    if host is not None and not 1 <= host < float("inf"):
        wrong.append(f"--host-memory-gib is {host:g}; expected 1 or more")
    if not options.shared.startswith("/"):
        wrong.append(f"--shared is {options.shared!r}; expected a directory from the root on, as /shared")
    if wrong:
        print(f"error: {printable(wrong[0])}", file=sys.stderr)
        return 2
    if hardware is None:
        try:
            hardware = hardware_here()
        except CannotTell as reason:
            line = f"--hardware is missing, and {reason}; expected one of {', '.join(HARDWARE)}"
            print(f"error: {printable(line)}", file=sys.stderr)
            return 2
    prompt, response, prompts, samples = numbers.values()
    wanted = Wanted(
        model=options.fit,
        hardware=hardware,
        prompt_tokens=prompt,
        response_tokens=response,
        prompts=prompts,
        samples=samples,
        host_memory_gib=host,
        shared=options.shared.rstrip("/"),
    )
    try:
        found = fit(wanted)
    except LaunchError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    changed = [f"--{name} {number}" for name, number in numbers.items() if number != _FIT_NUMBERS[name][0]]
    changed += [] if host is None else [f"--host-memory-gib {host:g}"]
    changed += [] if options.shared == SHARED else [f"--shared {options.shared}"]
    command = " ".join(["python -m recipe plan --fit", options.fit, "--hardware", hardware, *changed])
    text = run_file(found, printable(command))
    if options.json:
        plan = as_json(make_plan(found.found.run, search=False))
        print(json.dumps({"run_file": text, "plan": plan}, indent=2))
    else:
        print(text, end="")
    return 0
