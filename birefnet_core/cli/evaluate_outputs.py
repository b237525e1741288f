"""The files ``birefnet evaluate`` writes: checked before anything is measured, and written at the end."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError, DatasetError
from ..files import atomic_path, is_stream
from ..image_formats import all_suffixes
from ..metrics import SetResult
from ..metrics.contact_sheet import save_contact_sheet
from ..metrics.folders import image_folder, list_images
from ..metrics.plot import plot_curves
from ..metrics.tables import markdown_table, write_csv, write_image_csv, write_json
from ..text import first_line, printable
from .console import say
from .outputs import Inputs, Outputs, exists, model_files, prepare_file, prepare_folder

FILES = ("json", "csv", "image_csv", "markdown", "plot")  # flags that name one file each


class Data(NamedTuple):
    """Folders of one method on one set.

    Attributes:
        method: The method's name.
        set_name: The set's name.
        predictions: The masks' folder.
        truths: The ground truths' folder; None where there is none.
        images: The images' folder, or None.
        written: Whether a model writes the predictions first.
    """

    method: str
    set_name: str
    predictions: Path
    truths: Path | None
    images: Path | None
    written: bool


def check_outputs(data: Sequence[Data], args: argparse.Namespace) -> None:
    """Checks that every file can be written and is neither an input nor another output.

    Raises:
        ConfigError: One cannot, or is.
    """
    read = [folder for one in data for folder in (one.truths, one.images) if folder is not None]
    read += [one.predictions for one in data if not one.written]
    files = [path for folder in read for path in _files(folder)]
    inputs, outputs = Inputs([*files, *model_files(args.model)]), Outputs()
    for name in (*FILES, "cache"):
        if getattr(args, name):
            flag = f"--{name.replace('_', '-')}"
            prepare_file(getattr(args, name), flag, inputs, outputs, streams=name != "cache")
    if args.sheet:
        paths = _sheet_paths(args.sheet, [(one.method, one.set_name) for one in data])
        for path in dict.fromkeys((args.sheet, *paths)):  # the first where the others' sets cannot be scored
            prepare_file(path, "--sheet", inputs, outputs)
    _check_images(read, args)
    for one in data:
        if one.written and args.save:
            _check_saved(one, read, inputs, outputs)
        elif one.written:
            one.predictions.mkdir(parents=True, exist_ok=True)


def _check_images(read: Sequence[Path], args: argparse.Namespace) -> None:
    """Makes sure that images are named as such, and nothing is taken for a mask by the next evaluation."""
    for name in ("plot", "sheet"):
        path = getattr(args, name)
        if path and path.suffix.lower() not in ("", ".png") and not is_stream(path):
            raise ConfigError(f"--{name} {printable(path)}: is a PNG file. Give a name that ends in .png.")
    for name in (*FILES, "cache", "sheet"):
        path = getattr(args, name)
        for folder in read if path else ():
            if path.suffix.lower() in all_suffixes() and folder.exists() and os.path.samefile(path.parent, folder):
                raise ConfigError(
                    f"--{name.replace('_', '-')} {printable(path)}: would be taken for a mask or image by the next "
                    "evaluation. Give another folder."
                )


def _check_saved(one: Data, read: Sequence[Path], inputs: Inputs, outputs: Outputs) -> None:
    """Makes sure that the masks to be kept replace nothing that is read, and nothing but masks of former runs."""
    from ..images import is_own_output  # here, because it imports torch, which scoring does not need

    folder = one.predictions
    if str(folder) == "-":
        raise ConfigError("--save -: masks are not written to standard output. Give a folder.")
    for other in read:
        if folder.exists() and other.exists() and os.path.samefile(folder, other):
            raise ConfigError(f"--save {printable(folder)}: is a folder that is read. Give another one for the masks.")
    prepare_folder(folder, "--save")
    for truth in _files(one.truths) if one.truths else ():
        mask = folder / f"{truth.stem}.png"
        if mask in inputs or outputs.purpose_of(mask):
            name = printable(mask.name)
            raise ConfigError(f"--save {printable(folder)}: {name} would replace another file of this run.")
        if exists(mask) and not is_own_output(mask):
            raise ConfigError(
                f"--save {printable(folder)}: {printable(mask.name)} is already there, and is no mask of a former run. "
                "Give another folder, or move what is there."
            )
        outputs.add(mask, "--save")


def write_results(results: Sequence[SetResult], args: argparse.Namespace) -> bool:
    """Prints the table and writes the requested files; returns whether one could not be written."""
    table = markdown_table(results, paper=args.paper)
    say(printable(table, keep="\n"))
    writers: list[tuple[Path, Callable[[Path], None]]] = []
    if args.markdown:
        writers.append((args.markdown, lambda path: _write_text(path, table + "\n")))
    if args.json:
        writers.append((args.json, lambda path: write_json(results, path)))
    if args.csv:
        writers.append((args.csv, lambda path: write_csv(results, path)))
    if args.image_csv:
        writers.append((args.image_csv, lambda path: write_image_csv(results, path)))
    if args.plot:
        writers.append((args.plot, lambda path: plot_curves(results, path)))
    if args.sheet:
        writers += _sheet_writers([result for result in results if result.images], args)
    failures = [failure for path, write in writers if (failure := _write(path, write))]
    for failure in failures:
        say(f"error: {failure}", error=True)
    return bool(failures)


def _write(path: Path, write: Callable[[Path], None]) -> str:
    """Writes a file whole or not at all; returns why it could not be written, or an empty text."""
    try:
        if is_stream(path):
            write(path)
            return ""
        with atomic_path(Path(os.path.realpath(path))) as part:  # a link stays one
            write(Path(part))
    except OSError as error:
        return f"{printable(path)}: not written ({error.strerror or first_line(error)})."
    return ""


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _sheet_paths(sheet: Path, names: Sequence[tuple[str, str]]) -> list[Path]:
    """One sheet, or with several methods or sets one for each, told apart by their names."""
    if len(names) == 1:
        return [sheet]
    separators = str.maketrans(dict.fromkeys("/\\", "_"))
    return [sheet.with_name(f"{sheet.stem}_{'_'.join(pair).translate(separators)}{sheet.suffix}") for pair in names]


def _sheet_writers(results: Sequence[SetResult], args: argparse.Namespace) -> list[tuple[Path, Callable[[Path], None]]]:
    writers: list[tuple[Path, Callable[[Path], None]]] = []
    paths = _sheet_paths(args.sheet, [(result.method, result.set_name) for result in results])
    for path, result in zip(paths, results, strict=True):

        def write(part: Path, result: SetResult = result) -> None:
            images = None
            if args.images:
                images = list_images(image_folder(args.images, result.set_name) if args.sets else args.images)
            save_contact_sheet(result, part, count=args.worst, key=args.worst_by, images=images)

        writers.append((path, write))
    return writers


def _files(folder: Path) -> list[Path]:
    """The images of a folder; empty where it cannot be read, which scoring reports."""
    try:
        return list(list_images(folder).values())
    except (DatasetError, OSError):
        return []
