"""birefnet train: flags -> recipe -> training."""

from __future__ import annotations

import argparse
import json
import os
import typing
from pathlib import Path
from typing import Any

from .. import training
from ..errors import ConfigError
from ..stop_signal import STOPPED
from ..text import printable
from ..torchrun import current_process
from ..training import Recipe, TrainingData, from_values, load_datasets, load_recipe, train
from ..training.compare import CURVES, REPORT, compare_runs
from ..training.data.examples import draw_examples
from ..training.data.folders import EXAMPLES
from ..training.recipe import field_names
from ..training.report import save_png
from ..training.run_folder import RunFolder, write_errors_as_training_error
from ..training.run_inputs import check_files_stay
from .console import say
from .train_progress import ProgressBar

DESCRIPTION = "Trains a BiRefNet on your images and masks."
DEFAULT_RECIPE = "finetune"
# Flags that mean nothing unless another field has a certain value.
_ONLY_WITH = {
    "lr_epochs": ("schedule", "step"), "lr_factor": ("schedule", "step"), "lr_floor": ("schedule", "cosine"),
    "lora_rank": ("train", "lora"), "lora_alpha": ("train", "lora"),
}  # fmt: skip
# Flags that mean nothing while another field is 0.
_ONLY_ABOVE_0 = {
    "augment.crop_least": "augment.crop", "augment.rotate_degrees": "augment.rotate",
    "augment.colour_strength": "augment.colour", "augment.pepper_share": "augment.pepper",
}  # fmt: skip
LORA_LR = 10  # times the rates of a recipe for whole weights, at which adapters have learned little when it ends
NEW_LR = 1e-3  # of a new network by a recipe for a trained one; ten times that of `finetune`, as in `shapes`


def recipes_folder() -> Path:
    """Where the recipes that have names are: installed with the package, or in a checkout's ``train/recipes``."""
    installed = Path(training.__file__).parent / "recipes"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "train" / "recipes"


def recipe_names() -> list[str]:
    """The names ``--recipe`` knows."""
    return sorted(path.stem for path in recipes_folder().glob("*.toml"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments; every field of the recipe is one."""
    parser.epilog = "Several GPUs: torchrun --nproc-per-node N -m birefnet_core train ... ; see docs/training.md."
    data = parser.add_argument_group("data")
    data.add_argument("--data", nargs="+", default=[], metavar="DIR", help="im/ + gt/, images/ + masks/, or RGBA PNGs")
    data.add_argument("--images", nargs="+", default=[], metavar="DIR", help="folders of images, with --masks")
    data.add_argument("--masks", nargs="+", default=[], metavar="DIR", help="folders of their masks, in the same order")
    data.add_argument("--val-data", nargs="+", default=[], metavar="DIR", help="for validation (else a part of --data)")
    data.add_argument("--backgrounds", metavar="DIR", help="images to put subjects on")
    data.add_argument("--skip-bad", action="store_true", help="leave out files that cannot be used")
    run = parser.add_argument_group("run")
    run.add_argument("--out", metavar="DIR", help="folder of the results")
    run.add_argument("--recipe", metavar="R", help=f"{', '.join(recipe_names())}, or a .toml file ({DEFAULT_RECIPE})")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, xpu (%(default)s)")
    run.add_argument("--resume", action="store_true", help="continue the training in --out, by its own recipe")
    run.add_argument("--dry-run", action="store_true", help="check the data and stop; with --out, draw examples there")
    run.add_argument("--compare", nargs="+", metavar="DIR", help="compare the trainings in these folders and stop")
    run.add_argument("--print-recipe", action="store_true", help="print the recipe with all flags and stop")
    run.add_argument("--quiet", action="store_true", help="no progress bar, no messages but warnings")
    fields = parser.add_argument_group("recipe", "each field of the recipe; see birefnet_core/training/recipe.py")
    for name, kind in field_names().items():
        _add_field(fields, name, kind)


def _add_field(group: argparse._ArgumentGroup, name: str, kind: Any) -> None:
    flag = _flag(name)
    if name == "network":
        group.add_argument(flag, nargs="+", metavar="KEY=VALUE", default=argparse.SUPPRESS, type=_assignment)
    elif name == "size":
        group.add_argument(flag, type=_size, metavar="N or WxH", default=argparse.SUPPRESS, dest=name)
    elif name == "encoder":
        group.add_argument(
            flag, "--encoder-weights", metavar="FILE|PACKAGE", default=argparse.SUPPRESS, dest=name,
            help="pretrained weights of the encoder of a new network",
        )  # fmt: skip
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


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The recipe with all flags applied. A resumed training starts from the recipe in its folder.

    A backbone without a checkpoint means a new network, whatever the recipe would start from. The rates for a trained
    network are too low for it, and many steps matter more to it than large batches. They are too low for adapters, too.
    The encoder weights of a recipe are for its own backbone in a new network.
    """
    flags = {name: getattr(args, name) for name in field_names() if hasattr(args, name)}
    given = tuple(flags)
    flags.update({f"network.{key}": value for key, value in flags.pop("network", ())})
    stored = RunFolder(args.out).recipe if args.resume and args.out else None
    values: dict[str, Any]
    if stored is not None and os.path.exists(stored) and not args.recipe:
        values = load_recipe(stored)
    else:
        values = load_recipe(_find_recipe(args.recipe or DEFAULT_RECIPE))
        if flags.get("backbone") and "init" not in flags:
            if values.get("init"):
                values.update(lr=NEW_LR, backbone_lr=NEW_LR / 10 if flags.get("encoder") else 0, accumulate=1)
            values.update(init="", decoder_epochs=0)
        if flags.get("train") == "lora" and values.get("train") != "lora":
            rates = {name: values.get(name, getattr(Recipe, name)) for name in ("lr", "backbone_lr")}
            values.update({name: rate * LORA_LR for name, rate in rates.items() if type(rate) in (int, float)})
        if flags.get("init") or flags.get("backbone", values.get("backbone")) != values.get("backbone"):
            values.pop("encoder", None)
    recipe = from_values(values).replace(**flags)
    for name in given:
        if getattr(args, name) not in ([], 0):  # as recipes have that do without
            _check_effect(name, recipe, args)
    return recipe


def _check_effect(name: str, recipe: Recipe, args: argparse.Namespace) -> None:
    """Refuses a flag that would be ignored."""
    field, needed = _ONLY_WITH.get(name, (name, None))
    if needed is not None and getattr(recipe, field) != needed:
        raise _no_effect(name, f"{field}={getattr(recipe, field)!r}", f"add {_flag(field)} {needed}")
    if (other := _ONLY_ABOVE_0.get(name)) and not recipe.to_flat()[other]:
        raise _no_effect(name, f"{other}=0", f"add {_flag(other)} 0.5")
    if name == "backbone_lr" and recipe.train == "decoder":
        raise _no_effect(name, "train='decoder'", "add --train all")
    if name == "val_fraction" and args.val_data:
        raise _no_effect(name, "--val-data", "leave --val-data out")


def _no_effect(name: str, given: str, advice: str) -> ConfigError:
    return ConfigError(f"{_flag(name)} has no effect with {given}: {advice}, or leave {_flag(name)} out.")


def _flag(name: str) -> str:
    return "--" + name.replace(".", "-").replace("_", "-")


def _find_recipe(name: str) -> Path:
    if Path(name).suffix == ".toml":
        return Path(name)
    if name not in recipe_names():
        raise ConfigError(
            f"recipe {name!r} is not known; choose one of {', '.join(recipe_names())}, or give a .toml file."
        )
    return recipes_folder() / f"{name}.toml"


def run(args: argparse.Namespace) -> int:
    """Trains, or only checks the data or prints the recipe. Under torchrun the first process prints for all."""
    quiet = args.quiet or current_process().rank > 0
    if args.compare:
        _print(compare_runs(args.compare, args.out))
        if args.out and not quiet:
            _print(f"See {Path(args.out) / REPORT} and {CURVES}")
        return 0
    recipe = recipe_of(args)
    if args.print_recipe:
        print(recipe.to_toml(), end="")
        return 0
    data = TrainingData(
        sets=tuple(args.data), images=tuple(args.images), masks=tuple(args.masks), validation=tuple(args.val_data),
        backgrounds=args.backgrounds, skip_bad=args.skip_bad,
    )  # fmt: skip
    if args.dry_run:
        folder = RunFolder(args.out) if args.out else None
        if folder is not None:
            folder.check(resume=args.resume)  # its examples are replaced
        datasets = load_datasets(recipe, data, folder=folder, resume=args.resume)
        _print(datasets.text)
        if folder is not None:
            folder.make()
            with write_errors_as_training_error(folder):
                save_png(draw_examples(datasets.training.pairs), folder.path / EXAMPLES)
            _print(f"See {folder.path / EXAMPLES}")
        return 0
    if not args.out:
        raise ConfigError("give --out DIR, the folder of the results.")
    _check_recipe_stays(args)
    result = train(recipe, data, args.out, device=args.device, resume=args.resume, progress=ProgressBar(quiet=quiet))
    if result.signal is not None:
        if not quiet:
            say(f"stopped after {result.steps} steps; continue with --resume", error=True)
        return STOPPED
    if not quiet:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in result.scores.items())
        _print(f"{result.steps} steps done. Last validation: {scores or 'none'}. See {result.folder / 'report.md'}")
    return 0


def _check_recipe_stays(args: argparse.Namespace) -> None:
    """Refuses to write the recipe of the run, which has all flags, over the one that is read."""
    folder = RunFolder(args.out)
    if os.path.exists(folder.last) or not (args.recipe and args.recipe.endswith(".toml")):
        return  # a training that goes on may read the recipe in its folder
    if os.path.exists(folder.recipe) and os.path.samefile(args.recipe, folder.recipe):
        raise ConfigError(f"{folder.recipe}: would be replaced by the recipe of the run. Give --out another folder.")
    check_files_stay(folder, [Path(args.recipe)])


def _print(text: str) -> None:
    say(printable(text, keep="\n"))
