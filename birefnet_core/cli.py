"""The command line: python -m birefnet_core COMMAND.

Exit codes: 0 all went well; 1 some of the work was not done, and the summary says which; 2 nothing could
be done (wrong use, no model); 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from . import cli_checkpoints, cli_evaluate, cli_export, cli_segment
from .errors import exit_code

COMMANDS = (cli_segment, cli_evaluate, cli_checkpoints, cli_export)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog="python -m birefnet_core", description="BiRefNet: images in, masks out.")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more about what is going on")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    args = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING, format="%(message)s")
    return exit_code(lambda: args.run(args))
