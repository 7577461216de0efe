# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe weights` and `model-config`: Hugging Face weights into a Megatron checkpoint, and config.json."""

from __future__ import annotations

import argparse

from recipe.weights import config_cli, convert

COMMANDS = ("weights", "model-config")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands."""
    help_text = "convert a Hugging Face checkpoint into a Megatron one"
    convert.add_arguments(subparsers.add_parser("weights", help=help_text, description=convert.DESCRIPTION))
    config = subparsers.add_parser("model-config", help=config_cli.TEXT, description=config_cli.TEXT + ".")
    config_cli.add_arguments(config)
