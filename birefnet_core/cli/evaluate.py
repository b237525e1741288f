"""birefnet evaluate --pred DIR --gt DIR"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, DatasetError
from ..metrics import KEYS, MATTING_KEYS, IncompleteEvaluation, Protocol, SetResult, evaluate_set, mean_of_sets
from ..metrics.folders import ground_truth_folder, image_folder, list_images, set_name_of
from ..metrics.optional import OPENCV, matplotlib_figure
from ..metrics.published import DIS_MEAN, DIS_TESTS, paper_name
from ..text import printable
from .console import Progress, say
from .evaluate_outputs import Data, check_outputs, write_results
from .outputs import named_path

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
    parser.add_argument(
        "--gt", required=True, type=named_path, metavar="DIR", help="ground truths, or the root of the sets"
    )
    parser.add_argument(
        "--sets", nargs="+", default=[], metavar="SET", help="sets under the roots: PRED/SET, GT/SET/gt, IMAGES/SET/im"
    )
    parser.add_argument("--allow-missing", action="store_true", help="score what can be paired and read")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes; default: by the set's size")
    parser.add_argument(
        "--cache", type=named_path, metavar="F", help="keep measurements, to resume after an interruption"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    _add_options(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    measured = parser.add_argument_group("what is measured")
    measured.add_argument(
        "--metrics", nargs="+", metavar="KEY", choices=(*KEYS, *MATTING_KEYS), help=f"of {' '.join(KEYS)}; default: all"
    )
    measured.add_argument("--matting", action="store_true", help=f"also {' '.join(MATTING_KEYS)}, for soft masks")
    measured.add_argument("--hce-relax", type=int, default=5, metavar="PX", help="tolerance of HCE (%(default)s)")

    output = parser.add_argument_group("what is written")
    output.add_argument("--json", type=named_path, metavar="F", help="scores of sets and images, and warnings")
    output.add_argument("--csv", type=named_path, metavar="F", help="scores of sets")
    output.add_argument("--image-csv", type=named_path, metavar="F", help="scores of images")
    output.add_argument("--markdown", type=named_path, metavar="F", help="the printed table")
    output.add_argument("--plot", type=named_path, metavar="F.png", help="precision-recall and F-measure curves")
    output.add_argument("--sheet", type=named_path, metavar="F.png", help="the worst images on one sheet")
    output.add_argument("--worst", type=int, default=12, metavar="N", help="images on the sheet (%(default)s)")
    output.add_argument("--worst-by", metavar="KEY", help="the score that makes them worst (Sm, or the first there is)")
    output.add_argument(
        "--paper", default="birefnet", choices=("birefnet", "all", "none"), help="published rows beside (%(default)s)"
    )

    model = parser.add_argument_group("segment first")
    model.add_argument("--model", metavar="NAME|FILE", help="checkpoint whose masks are scored")
    model.add_argument("--images", type=named_path, metavar="DIR", help="its images; also shown on the sheet")
    model.add_argument(
        "--save", type=named_path, metavar="DIR", help="keep the masks here; default: a temporary folder"
    )
    model.add_argument("--size", type=_size, metavar="S", help="N, WxH or native; default: the training size")
    model.add_argument("--device", help="auto, cpu, cuda, cuda:1, mps, xpu (auto)")


def _size(text: str) -> int | tuple[int, int] | str:
    from .segment import parse_size  # here, because it imports torch, which scoring does not need

    return parse_size(text)


def run(args: argparse.Namespace) -> int:
    """Evaluates every method on every set; what cannot be used is reported, and the others are scored.

    Returns:
        0 if everything was scored, 1 if a part was not.

    Raises:
        BiRefNetError: nothing could be scored, or the options do not fit together.
    """
    protocol = _protocol(args)
    sets = list(dict.fromkeys(name for text in args.sets for name in text.split(",") if name)) or [None]
    report = _Report()
    with _methods(args) as methods:
        data = [_data(method, set_name, args) for set_name in sets for method in methods]
        check_outputs(data, args)
        if args.model:
            methods[-1].segmenter = _segmenter(args)
        for set_name in sets:
            for method in methods:
                report.evaluate(method, set_name, args, protocol)
        if not report.results:
            raise DatasetError(" ".join(report.errors))
        report.print_warnings(protocol)
        # Before a model's masks are removed: the sheet shows them.
        lost = write_results(_with_dis_mean(report.results), args)
    return 1 if report.errors or lost else 0


def _data(method: _Method, set_name: str | None, args: argparse.Namespace) -> Data:
    """Where one method's files of one set are, as far as they are there."""

    def existing(find: Callable[[], Path]) -> Path | None:
        try:
            return find()
        except DatasetError:  # said when the set is scored
            return None

    predictions = method.root if set_name is None else method.root / set_name
    truths = args.gt if set_name is None else existing(lambda: ground_truth_folder(args.gt, set_name))
    images = args.images
    if images is not None and set_name is not None:
        images = existing(lambda: image_folder(args.images, set_name))
    name = set_name or set_name_of(args.gt)
    return Data(method.name, name, predictions, truths, images, written=method.is_model)


@dataclass
class _Method:
    """One column of the comparison: a folder of predictions, and the model that fills it first, if any."""

    name: str
    root: Path
    is_model: bool = False
    segmenter: Segmenter | None = None


@dataclass
class _Report:
    """Results, errors and notes so far."""

    results: list[SetResult] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # on images that a model segmented

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
        left_out: list[str] = []
        if method.segmenter is not None:
            images = list_images(args.images if set_name is None else image_folder(args.images, set_name))
            wanted = {stem: images[stem] for stem in stems if stem in images}
            left_out, notes = _segment(method.segmenter, wanted, predictions, args, name)
            self.notes += notes
            self.errors += left_out
        with Progress(unit="pair", label=f"{method.name}: {name}", quiet=args.quiet) as progress:
            return evaluate_set(
                predictions,
                truths,
                method=method.name,
                set_name=name,
                protocol=protocol,
                workers=args.workers or _workers_for(len(stems)),
                cache=args.cache,
                allow_missing=args.allow_missing or bool(left_out),
                progress=progress.show,
            )

    def print_warnings(self, protocol: Protocol) -> None:
        """Prints warnings and errors on standard error."""
        if protocol.lacks_opencv:
            say(f"warning: HCE is left out; it needs OpenCV: pip install {OPENCV}", error=True)
        for result in self.results:
            for line in result.warnings():
                say(printable(f"warning: {result.method}: {line}"), error=True)
        for note in self.notes:
            say(printable(f"note: {note}"), error=True)
        for error in self.errors:
            say(printable(f"error: {error}"), error=True)


def _protocol(args: argparse.Namespace) -> Protocol:
    """Checks the options before any work is done."""
    if not args.pred and not args.model:
        raise ConfigError("Nothing to score: give --pred DIR, or --model NAME with --images DIR.")
    if args.model and not args.images:
        raise ConfigError("--model needs --images DIR, the folder of images to segment.")
    for flag, value in (("--save", args.save), ("--size", args.size), ("--device", args.device)):
        if value is not None and not args.model:
            raise ConfigError(f"{flag} is of masks that --model makes: give a model, or leave it out.")
    if args.images and not (args.model or args.sheet):
        raise ConfigError("--images are for --model or --sheet: give one of them, or leave them out.")
    if args.workers < 0 or args.worst < 1:
        raise ConfigError(f"--workers {args.workers}, --worst {args.worst}: expected positive numbers.")
    keys = tuple(args.metrics) if args.metrics else None
    protocol = Protocol(keys=keys, matting=args.matting, relax=args.hce_relax)
    if args.worst_by is None:  # whoever has left Sm out has not asked for it
        args.worst_by = "Sm" if "Sm" in protocol.score_keys else protocol.score_keys[0]
    if args.worst_by not in protocol.score_keys:
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
    with ExitStack() as stack:
        if args.model:
            methods.append(_Method(Path(args.model).name, args.save or _temporary_folder(stack), is_model=True))
        names = [method.name for method in methods]
        if len(set(names)) < len(names):
            raise ConfigError(f"Two methods have the same name ({', '.join(names)}); name them: --pred NAME=DIR.")
        yield methods


def _temporary_folder(stack: ExitStack) -> Path:
    """A folder that is removed when the stack is closed."""
    try:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="birefnet_masks_")))
    except OSError as error:
        raise ConfigError(f"no temporary folder for the masks ({error.strerror}): give one by --save.") from error


def _segmenter(args: argparse.Namespace) -> Segmenter:
    """The model as a function of images (B H W 3) that returns masks (B H W)."""
    from ..checkpoints import load_model  # here, because it imports torch, which scoring does not need
    from ..devices import choose_device
    from ..inference import Segmenter

    # Fused before it is moved: a GPU would have to hold the convolutions twice.
    segmenter = Segmenter(load_model(args.model, device=choose_device(args.device or "auto"), fused=True))
    segmenter.network_size(args.size, 1, 1)  # a wrong size is a wrong call, not a property of the images
    return segmenter


def _named_folder(text: str) -> _Method:
    name, equals, folder = text.partition("=")
    if not equals or os.sep in name or os.path.isdir(text):
        name, folder = Path(text).resolve().name, text
    if not folder:
        raise ConfigError(f"--pred {printable(text)}: the name of the folder is empty. Give NAME=DIR or DIR.")
    return _Method(name, Path(folder))


def _segment(
    segmenter: Segmenter, images: dict[str, Path], folder: Path, args: argparse.Namespace, set_name: str
) -> tuple[list[str], list[str]]:
    """Writes a mask for each image into a folder; returns why some were left out, and what was guessed of others."""
    from ..image_reading import read_image_file
    from ..images import write_mask
    from .segment_image import NOT_SEGMENTED, failure_of, segment_image

    left_out, notes = [], []
    label = f"{args.model}: segmenting {set_name}"
    with Progress(len(images), unit="image", label=label, quiet=args.quiet) as progress:
        for stem, path in images.items():
            try:
                image = read_image_file(path)
                notes += [f"{path}: {note}" for note in image.notes]
                mask = segment_image(segmenter, image, args.size)  # 1 H W
                write_mask(folder / f"{stem}.png", mask[0])
            except (*NOT_SEGMENTED, ConfigError) as error:  # the last where an image's native size is too large
                left_out.append(f"{failure_of(path, error)} It was left out.")
            progress.step()
    return left_out, notes


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
