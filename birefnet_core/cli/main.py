"""The console script: parses the command line, runs one command and turns errors into exit codes.

Exit codes: 0 everything was done; 1 something was not done, and the summary names it; 2 the work could not begin (wrong
options, no model); 130 interrupted; 143 ended by SIGTERM or SIGHUP, but for trainings, which end with 130 whichever
signal stops them and whenever.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from ..checkpoints.hub_client import hub_client
from ..errors import BiRefNetError
from ..stop_signal import Terminated, interrupt_code
from ..text import printable
from ..torchrun import current_process
from .console import (
    Formatter,
    OutputLostError,
    flush_streams,
    prepare_streams,
    reader_has_gone,
    say,
    signals_interrupt,
)

# One module for each command. Only the module of the command that runs is imported: training brings more packages than
# listing checkpoints needs.
COMMANDS = {
    "segment": "write masks, and cut-outs, of images",
    "video": "write cut-outs, composites and masks of clips",
    "evaluate": "score predicted masks against ground truths",
    "checkpoints": "list the known checkpoints, and which are on this disk",
    "export": "write the network as an ONNX file",
    "train": "train a network on your images and masks",
    "ablation": "train and score the rows of the paper's ablation",
}
_TRAININGS = ("train", "ablation")


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Of a command, what is left over is refused with the command's own usage."""
        found, left = super().parse_known_args(args, namespace)
        if left and self.get_default("run") is not None:
            several = any(action.dest == "inputs" for action in self._actions)
            names = several and not any(text.startswith("-") for text in left)
            hint = " (give all inputs together, before the flags or after them)" if names else ""
            self.error(f"unrecognized arguments: {' '.join(left)}{hint}")
        return found, left

    def error(self, message: str) -> NoReturn:
        super().error(printable(message, keep="\n"))  # it has arguments, which the shell may have made of file names


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of the whole command line.

    Args:
        command: The only command whose arguments are added; None adds those of all.
    """
    parser = _Parser(prog="birefnet", description="BiRefNet: images in, masks out.")
    parser.add_argument("-v", "--verbose", action="store_true", help="print progress messages")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        subparser = commands.add_parser(name, help=summary)
        if command in (name, None):
            module = import_module(f".{name}", __package__)
            subparser.description = module.DESCRIPTION
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    prepare_streams()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with signals_interrupt() as check_interrupt:
            code = exit_code(lambda: _run(arguments, check_interrupt))
    finally:
        lost = _flush()
    return max(code, lost)


def _run(arguments: Sequence[str], check_interrupt: Callable[[], None]) -> int:
    hub_client("utils.tqdm")  # timm imports it, too, and a traceback would say nothing of the environment
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    if command != "checkpoints":  # all others import torch, which MKL ends without a working folder, naming a library
        os.getcwd()
    try:
        args = build_parser(command).parse_args(arguments)
        check_interrupt()
        handler = logging.StreamHandler()
        handler.setFormatter(Formatter("%(message)s"))
        logging.basicConfig(level=_log_level(args), handlers=[handler])
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of its readers, about metadata; errors name the file
        warnings.filterwarnings("ignore", module=r"torch\.(serialization|_utils|_weights_only_unpickler)")  # the same
        return args.run(args)
    except Terminated as signal:
        if command in _TRAININGS:
            raise KeyboardInterrupt from signal
        raise


def exit_code(run: Callable[[], int]) -> int:
    """Calls ``run`` and prints the error that ended it, if any, on standard error.

    Returns:
        What ``run`` returns; 2 after one of this package's errors and without memory, a GPU's included; 130 after
        Ctrl+C and 143 after SIGTERM; 0 where standard output was closed by the program that read it.
    """
    try:
        return run()
    except BiRefNetError as error:
        say(f"error: {error}", error=True)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _is_out_of_memory(error):
            raise
        say("error: out of memory; use a smaller checkpoint or size, or more memory.", error=True)
        return 2
    except OutputLostError as error:
        say(f"error: {error}", error=True)
        return 1
    except KeyboardInterrupt as error:
        say("interrupted", error=True)
        return interrupt_code(type(error))
    except FileNotFoundError:
        if _has_working_folder():
            raise
        say("error: the working folder was deleted; change to one that is there.", error=True)
        return 2
    except BrokenPipeError:
        if not reader_has_gone():
            raise
        return 0


def _is_out_of_memory(error: RuntimeError) -> bool:
    from ..out_of_memory import is_out_of_memory  # here, because it imports torch, which not every command needs

    return is_out_of_memory(error)


def _has_working_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _flush() -> int:
    """Writes what is buffered; returns 1 where that fails, else 0."""
    try:
        flush_streams()
    except OutputLostError as error:
        say(f"error: {error}", error=True)
        return 1
    return 0


def _log_level(args: argparse.Namespace) -> int:
    """INFO with --verbose, and without --quiet in training; under torchrun only for the first process."""
    informs = args.verbose or (args.command in _TRAININGS and not args.quiet)
    return logging.INFO if informs and current_process().rank == 0 else logging.WARNING
