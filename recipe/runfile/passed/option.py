# SPDX-License-Identifier: Apache-2.0
"""Settings of verl on the command line of everything that takes a run file."""

from __future__ import annotations

import argparse


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Have the parser's command take settings of verl after its options (`recipe.__main__` reads them)."""
    parser.add_argument_group(
        "settings of verl",
        "-- KEY=VALUE ... after all options: as in the section [verl] of the run file, which they win over "
        "(docs/LAUNCH.md)",
    )
    parser.set_defaults(settings=[])
