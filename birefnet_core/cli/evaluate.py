"""birefnet evaluate --pred DIR --gt DIR"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..errors import ConfigError, DatasetError, ImageError
from ..metrics import KEYS, MATTING_KEYS, IncompleteEvaluation, Protocol, SetResult, evaluate_set, mean_of_sets
from ..metrics.contact_sheet import save_contact_sheet
from ..metrics.folders import ground_truth_folder, image_folder, list_images, set_name_of
from ..metrics.optional import OPENCV, matplotlib_figure
from ..metrics.plot import plot_curves
from ..metrics.published import DIS_MEAN, DIS_TESTS, paper_name
from ..metrics.tables import markdown_table, write_csv, write_image_csv, write_json

if TYPE_CHECKING:
    from ..inference import Segmenter

_PAIRS_PER_WORKER = 50  # starting a process takes as long as measuring about this many pairs
_MOST_WORKERS = 8
DESCRIPTION = (
    "Scores folders of masks by the protocol of the paper and prints one table. Files pair by name without ending; "
    "predictions are resized to their ground truths."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "--pred", nargs="+", action="extend", default=[], metavar="[NAME=]DIR", help="masks; one folder per method"
    )
    parser.add_argument("--gt", required=True, type=Path, metavar="DIR", help="ground truths, or the root of the sets")
    parser.add_argument(
        "--sets", nargs="+", default=[], metavar="SET", help="sets under the roots: PRED/SET, GT/SET/gt, IMAGES/SET/im"
    )
    parser.add_argument("--allow-missing", action="store_true", help="score what can be paired and read")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes; default: by the set's size")
    parser.add_argument("--cache", type=Path, metavar="F", help="keep measurements, to resume after an interruption")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    _add_options(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    measured = parser.add_argument_group("what is measured")
    measured.add_argument(
        "--metrics", nargs="+", metavar="KEY", choices=(*KEYS, *MATTING_KEYS), help=f"of {' '.join(KEYS)}; default: all"
    )
    measured.add_argument("--matting", action="store_true", help=f"also {' '.join(MATTING_KEYS)}, for soft masks")
    measured.add_argument("--hce-relax", type=int, default=5, metavar="PX", help="tolerance of HCE (%(default)s)")

    output = parser.add_argument_group("what is written")
    output.add_argument("--json", type=Path, metavar="F", help="scores of sets and images, and warnings")
    output.add_argument("--csv", type=Path, metavar="F", help="scores of sets")
    output.add_argument("--image-csv", type=Path, metavar="F", help="scores of images")
    output.add_argument("--markdown", type=Path, metavar="F", help="the printed table")
    output.add_argument("--plot", type=Path, metavar="F.png", help="precision-recall and F-measure curves")
    output.add_argument("--sheet", type=Path, metavar="F.png", help="the worst images on one sheet")
    output.add_argument("--worst", type=int, default=12, metavar="N", help="images on the sheet (%(default)s)")
    output.add_argument("--worst-by", default="Sm", metavar="KEY", help="the score that makes them worst (%(default)s)")
    output.add_argument(
        "--paper", default="birefnet", choices=("birefnet", "all", "none"), help="published rows beside (%(default)s)"
    )

    model = parser.add_argument_group("segment first")
    model.add_argument("--model", metavar="NAME|FILE", help="checkpoint whose masks are scored")
    model.add_argument("--images", type=Path, metavar="DIR", help="its images; also shown on the sheet")
    model.add_argument("--save", type=Path, metavar="DIR", help="keep the masks here; default: a temporary folder")
    model.add_argument("--size", type=int, metavar="N", help="input size; default: the checkpoint's")
    model.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Evaluates every method on every set; what cannot be used is reported, and the others are scored.

    Returns:
        0 if everything was scored, 1 if a part was not.

    Raises:
        BiRefNetError: nothing could be scored, or the options do not fit together.
    """
    protocol = _protocol(args)
    sets = [name for text in args.sets for name in text.split(",") if name] or [None]
    report = _Report()
    with _methods(args) as methods:
        for set_name in sets:
            for method in methods:
                report.evaluate(method, set_name, args, protocol)
        if not report.results:
            raise DatasetError(" ".join(report.errors))
        report.print_warnings(protocol)
        _write(_with_dis_mean(report.results), args)  # before a model's masks are removed: the sheet shows them
    return 1 if report.errors else 0


@dataclass(frozen=True)
class _Method:
    """One column of the comparison: a folder of predictions, and the model that fills it first, if any."""

    name: str
    root: Path
    segment: Segmenter | None = None


@dataclass
class _Report:
    """Results and errors so far."""

    results: list[SetResult] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def evaluate(self, method: _Method, set_name: str | None, args: argparse.Namespace, protocol: Protocol) -> None:
        """Scores one method on one set and keeps the result, or the reason why there is none."""
        try:
            self.results.append(self._score(method, set_name, args, protocol))
        except IncompleteEvaluation as error:
            self.errors.append(str(error))
            if error.result.images:
                self.results.append(error.result)
        except DatasetError as error:
            self.errors.append(str(error))

    def _score(self, method: _Method, set_name: str | None, args: argparse.Namespace, protocol: Protocol) -> SetResult:
        truths = args.gt if set_name is None else ground_truth_folder(args.gt, set_name)
        predictions = method.root if set_name is None else method.root / set_name
        name = set_name or set_name_of(truths)
        stems = list(list_images(truths))
        unreadable: list[str] = []
        if method.segment is not None:
            images = list_images(args.images if set_name is None else image_folder(args.images, set_name))
            wanted = {stem: images[stem] for stem in stems if stem in images}
            unreadable = _segment(method.segment, wanted, predictions, args, name)
            self.errors += unreadable
        with _progress(f"{method.name}: {name}", args) as progress:
            return evaluate_set(
                predictions,
                truths,
                method=method.name,
                set_name=name,
                protocol=protocol,
                workers=args.workers or _workers_for(len(stems)),
                cache=args.cache,
                allow_missing=args.allow_missing or bool(unreadable),
                progress=progress,
            )

    def print_warnings(self, protocol: Protocol) -> None:
        """Prints warnings and errors on standard error."""
        if protocol.lacks_opencv:
            _print(f"warning: HCE is left out; it needs OpenCV: pip install {OPENCV}", sys.stderr)
        for result in self.results:
            for line in result.warnings():
                _print(f"warning: {result.method}: {line}", sys.stderr)
        for error in self.errors:
            _print(f"error: {error}", sys.stderr)


def _protocol(args: argparse.Namespace) -> Protocol:
    """Checks the options before any work is done."""
    if not args.pred and not args.model:
        raise ConfigError("Nothing to score: give --pred DIR, or --model NAME with --images DIR.")
    if args.model and not args.images:
        raise ConfigError("--model needs --images DIR, the folder of images to segment.")
    if args.workers < 0 or args.worst < 1:
        raise ConfigError(f"--workers {args.workers}, --worst {args.worst}: expected positive numbers.")
    keys = tuple(args.metrics) if args.metrics else None
    protocol = Protocol(keys=keys, matting=args.matting, relax=args.hce_relax)
    if args.sheet and args.worst_by not in protocol.score_keys:
        raise ConfigError(f"--worst-by {args.worst_by}: choose one of {', '.join(protocol.score_keys)}.")
    if args.plot:
        if not {"maxF", "meanF", "adpF"} & set(protocol.score_keys):
            raise ConfigError("--plot needs the F-measure: add maxF to --metrics.")
        matplotlib_figure("--plot")
    return protocol


@contextmanager
def _methods(args: argparse.Namespace) -> Iterator[list[_Method]]:
    """The methods to compare; masks of a model go to a temporary folder unless they are to be kept."""
    methods = [_named_folder(text) for text in args.pred]
    with tempfile.TemporaryDirectory(prefix="birefnet_masks_") as folder:
        if args.model:
            methods.append(_Method(Path(args.model).name, args.save or Path(folder), _segmenter(args)))
        names = [method.name for method in methods]
        if len(set(names)) < len(names):
            raise ConfigError(f"Two methods have the same name ({', '.join(names)}); name them: --pred NAME=DIR.")
        yield methods


def _segmenter(args: argparse.Namespace) -> Segmenter:
    """The model as a function of images (B H W 3) that returns masks (B H W)."""
    from ..checkpoints import load_model  # here, because it imports torch, which scoring does not need
    from ..devices import choose_device
    from ..inference import Segmenter

    return Segmenter(load_model(args.model, device=choose_device(args.device)))


def _named_folder(text: str) -> _Method:
    name, equals, folder = text.partition("=")
    if not equals or os.sep in name or Path(text).is_dir():
        name, folder = Path(text).resolve().name, text
    return _Method(name, Path(folder))


def _segment(
    segment: Segmenter, images: dict[str, Path], folder: Path, args: argparse.Namespace, set_name: str
) -> list[str]:
    """Writes a mask for each image into a folder; returns what could not be read."""
    from ..images import read_image, write_mask

    folder.mkdir(parents=True, exist_ok=True)
    unreadable = []
    with _progress(f"{args.model}: segmenting {set_name}", args) as progress:
        for done, (stem, path) in enumerate(images.items(), start=1):
            try:
                image = read_image(path)[None]  # 1 H W 3
            except ImageError as error:
                unreadable.append(f"{error} It was left out.")
                continue
            write_mask(folder / f"{stem}.png", segment(image, size=args.size)[0])
            progress(done, len(images))
    return unreadable


def _workers_for(pairs: int) -> int:
    return min(os.cpu_count() or 1, pairs // _PAIRS_PER_WORKER + 1, _MOST_WORKERS)


def _with_dis_mean(results: list[SetResult]) -> list[SetResult]:
    """Adds the mean of DIS-TE1 to TE4 after the last of them, for methods scored on all four."""
    extended = []
    done: dict[str, dict[str, SetResult]] = {}
    for result in results:
        extended.append(result)
        tests = done.setdefault(result.method, {})
        if (name := paper_name(result.set_name)) in DIS_TESTS:
            tests[name] = result
            if len(tests) == len(DIS_TESTS):
                extended.append(mean_of_sets([tests[test] for test in DIS_TESTS], DIS_MEAN))
    return extended


def _write(results: list[SetResult], args: argparse.Namespace) -> None:
    """Prints the table and writes the requested files."""
    table = markdown_table(results, paper=args.paper)
    _print(table, sys.stdout)
    files = (args.json, args.csv, args.image_csv, args.markdown, args.plot, args.sheet)
    for path in filter(None, files):
        path.parent.mkdir(parents=True, exist_ok=True)
    if args.markdown:
        args.markdown.write_text(table + "\n", encoding="utf-8")
    if args.json:
        write_json(results, args.json)
    if args.csv:
        write_csv(results, args.csv)
    if args.image_csv:
        write_image_csv(results, args.image_csv)
    if args.plot:
        plot_curves(results, args.plot)
    if args.sheet:
        _write_sheets([result for result in results if result.images], args)


def _write_sheets(results: list[SetResult], args: argparse.Namespace) -> None:
    """One sheet, or with several methods or sets one for each, told apart by their names."""
    for result in results:
        path = args.sheet
        if len(results) > 1:
            path = path.with_name(f"{path.stem}_{result.method}_{result.set_name}{path.suffix}")
        images = None
        if args.images:
            images = list_images(image_folder(args.images, result.set_name) if args.sets else args.images)
        save_contact_sheet(result, path, count=args.worst, key=args.worst_by, images=images)


@contextmanager
def _progress(label: str, args: argparse.Namespace) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, in all) that draws a bar on standard error."""
    from huggingface_hub.utils import tqdm

    with tqdm(desc=label, unit="pair", disable=args.quiet or not sys.stderr.isatty()) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _print(text: str, stream: TextIO) -> None:
    """Prints, with question marks for characters the terminal cannot show."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), file=stream)
