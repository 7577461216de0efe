# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe weights`: Hugging Face weights into a Megatron checkpoint."""

from __future__ import annotations

import argparse

from recipe.weights import convert

COMMANDS = ("weights",)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `weights` command."""
    help_text = "convert a Hugging Face checkpoint into a Megatron one"
    convert.add_arguments(subparsers.add_parser("weights", help=help_text, description=convert.DESCRIPTION))
