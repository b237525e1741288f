"""birefnet export --model M --onnx F"""

from __future__ import annotations

import argparse
import importlib.util

from ..checkpoints import load_model
from ..errors import ConfigError
from ..text import printable
from .console import say
from .outputs import Inputs, Outputs, exists, model_files, named_path, prepare_file
from .segment import DEFAULT_MODEL, parse_size

DESCRIPTION = "Writes an ONNX file (image B,3,H,W in [0,1] -> mask B,1,H,W) and compares it with the network."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name, hub repo id, file or folder (%(default)s)")
    parser.add_argument("--onnx", required=True, type=named_path, metavar="F", help="the file to write")
    parser.add_argument("--size", type=parse_size, metavar="S", help="N or WxH; default: the training size")
    parser.add_argument("--dynamic-batch", action="store_true", help="leave the number of images open")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is already there")


def run(args: argparse.Namespace) -> int:
    """Exports and compares."""
    from ..export import TOLERANCE, check_onnx, check_place, export_onnx

    if args.size == "native":
        raise ConfigError("--size native: an ONNX file has one size; give N or WxH.")
    size = (args.size, args.size) if isinstance(args.size, int) else args.size
    prepare_file(args.onnx, "--onnx", Inputs(model_files(args.model)), Outputs(), streams=False)
    if exists(args.onnx) and not args.overwrite:
        raise ConfigError(f"{printable(args.onnx)} is already there (--overwrite replaces it).")
    check_place(args.onnx)
    model = load_model(args.model)
    say("exporting, which may take minutes ...")
    export_onnx(model, args.onnx, size=size, dynamic_batch=args.dynamic_batch, overwrite=args.overwrite)
    say(f"wrote {printable(args.onnx)} ({args.onnx.stat().st_size / 1e6:.0f} MB)")
    if importlib.util.find_spec("onnxruntime") is None:
        say("not compared with the network: onnxruntime is not installed")
        return 0
    difference = check_onnx(model, args.onnx)
    say(f"masks differ from the network's by at most {difference:.1e}")
    if difference > TOLERANCE:
        say(f"error: more than the {TOLERANCE:.0e} allowed", error=True)
        return 1
    return 0
