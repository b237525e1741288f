"""The command line of training: flags -> recipe -> ``train``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.utils import tqdm

from ..errors import ConfigError, exit_code
from .data import TrainingData
from .loop import train
from .prepare import prepare
from .recipe import Recipe, field_names, from_values, load_recipe
from .state import Folder

DEFAULT_RECIPE = "finetune"


def build_parser(recipes: Path) -> argparse.ArgumentParser:
    """The command line.

    Args:
        recipes: Folder of the recipes that have names.
    """
    names = sorted(path.stem for path in recipes.glob("*.toml"))
    parser = argparse.ArgumentParser(
        prog="finetune.py",
        description="Trains a BiRefNet on your images and masks.",
        epilog="Several GPUs: torchrun --nproc-per-node N train/finetune.py ... ; see docs/training.md.",
    )
    data = parser.add_argument_group("data")
    data.add_argument("--data", nargs="+", default=[], metavar="DIR", help="im/ + gt/, images/ + masks/, or RGBA PNGs")
    data.add_argument("--images", nargs="+", default=[], metavar="DIR", help="folders of images, with --masks")
    data.add_argument("--masks", nargs="+", default=[], metavar="DIR", help="folders of their masks, in the same order")
    data.add_argument("--val-data", nargs="+", default=[], metavar="DIR", help="for validation (else a part of --data)")
    data.add_argument("--backgrounds", metavar="DIR", help="images to put subjects on")
    data.add_argument("--skip-bad", action="store_true", help="leave out files that cannot be used")
    run = parser.add_argument_group("run")
    run.add_argument("--out", metavar="DIR", help="folder of the results")
    run.add_argument("--recipe", metavar="R", help=f"{', '.join(names)}, or a .toml file ({DEFAULT_RECIPE})")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, xpu (%(default)s)")
    run.add_argument("--resume", action="store_true", help="go on with the training in --out, by its own recipe")
    run.add_argument("--dry-run", action="store_true", help="look at the data and stop")
    run.add_argument("--print-recipe", action="store_true", help="print the recipe with all flags and stop")
    run.add_argument("--quiet", action="store_true", help="no progress bar, no messages but warnings")
    fields = parser.add_argument_group("recipe", "each field of the recipe; see birefnet_core/training/recipe.py")
    for name, kind in field_names().items():
        _add_field(fields, name, kind)
    return parser


def _add_field(group: argparse._ArgumentGroup, name: str, kind: Any) -> None:
    flag = "--" + name.replace(".", "-").replace("_", "-")
    if name == "network":
        group.add_argument(flag, nargs="+", metavar="KEY=VALUE", default=argparse.SUPPRESS, type=_assignment)
    elif name == "size":
        group.add_argument(flag, type=_size, metavar="N or WxH", default=argparse.SUPPRESS, dest=name)
    elif kind is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, dest=name)
    elif typing.get_origin(kind) is tuple:
        group.add_argument(flag, nargs="*", type=int, metavar="N", default=argparse.SUPPRESS, dest=name)
    else:
        group.add_argument(flag, type=kind, metavar=kind.__name__.upper(), default=argparse.SUPPRESS, dest=name)


def _size(text: str) -> list[int]:
    try:
        return [int(side) for side in text.lower().split("x")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected N or WxH") from None


def _assignment(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!r}: expected KEY=VALUE, such as image_pyramid=none")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def recipe_of(args: argparse.Namespace, recipes: Path) -> Recipe:
    """The recipe with all flags applied. A resumed training starts from the recipe in its folder.

    A backbone without a checkpoint asks for a new network, whatever the recipe would start from.
    """
    flags = {name: getattr(args, name) for name in field_names() if hasattr(args, name)}
    if "network" in flags:
        flags["network"] = dict(flags["network"])
    stored = Folder(args.out).recipe if args.resume and args.out else None
    values: dict[str, Any]
    if stored is not None and stored.exists() and not args.recipe:
        values = load_recipe(stored)
    else:
        values = load_recipe(_find_recipe(args.recipe or DEFAULT_RECIPE, recipes))
        if flags.get("backbone") and "init" not in flags:
            values.update(init="", decoder_epochs=0)
    recipe = from_values(values)
    return recipe.replace(**flags) if "network" not in flags else _with_network(recipe, flags)


def _with_network(recipe: Recipe, flags: dict[str, Any]) -> Recipe:
    network = {f"network.{key}": value for key, value in flags.pop("network").items()}
    return recipe.replace(**flags, **network)


def _find_recipe(name: str, recipes: Path) -> Path:
    path = Path(name)
    if path.suffix == ".toml":
        return path
    if not (recipes / f"{name}.toml").exists():
        known = ", ".join(sorted(p.stem for p in recipes.glob("*.toml")))
        raise ConfigError(f"recipe {name!r} is not known; choose one of {known}, or give a .toml file.")
    return recipes / f"{name}.toml"


class Bar:
    """A progress bar with loss terms and the time that remains."""

    def __init__(self, *, quiet: bool) -> None:
        self.bar: Any = None
        self.quiet = quiet or not sys.stderr.isatty()

    def __call__(self, news: dict[str, Any]) -> None:
        if self.bar is None:
            self.bar = tqdm(total=news["steps"], initial=news["step"] - 1, unit="step", disable=self.quiet)
        hidden = ("epoch", "step", "steps", "best", "lr")
        shown = {name: f"{value:.3g}" for name, value in news.items() if name not in hidden}
        if news["best"] is not None:
            shown["best"] = f"{news['best']:.4f}"
        self.bar.set_description(f"epoch {news['epoch']}", refresh=False)
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()


def main(arguments: Sequence[str] | None, recipes: Path) -> int:
    """Runs the command line; see ``cli`` for the exit codes."""
    args = build_parser(recipes).parse_args(arguments)
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first and not args.quiet else logging.WARNING, format="%(message)s")
    return exit_code(lambda: run(args, recipes, speaks=first and not args.quiet))


def run(args: argparse.Namespace, recipes: Path, *, speaks: bool) -> int:
    """Does what the flags ask for."""
    recipe = recipe_of(args, recipes)
    if args.print_recipe:
        print(recipe.to_toml(), end="")
        return 0
    data = TrainingData(
        sets=tuple(args.data), images=tuple(args.images), masks=tuple(args.masks), validation=tuple(args.val_data),
        backgrounds=args.backgrounds, skip_bad=args.skip_bad,
    )  # fmt: skip
    if args.dry_run:
        print(prepare(recipe, data).text)
        return 0
    if not args.out:
        raise ConfigError("give --out DIR, the folder of the results.")
    result = train(
        recipe, data, args.out, device=args.device, resume=args.resume, progress=Bar(quiet=not speaks)
    )
    if not result.finished:
        if speaks:
            print(f"stopped after {result.steps} steps; go on with --resume", file=sys.stderr)
        return 130
    if speaks:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in result.scores.items())
        print(f"{result.steps} steps done. Last validation: {scores or 'none'}. See {result.folder / 'report.md'}")
    return 0
