"""The paper's ablation (Tab. 1-3) at any scale: the same data, seeds and steps for networks of different parts."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoints import load_model
from ..devices import choose_device
from ..errors import ConfigError, DatasetError
from ..images import read_image, write_mask
from ..inference import Segmenter
from ..metrics import evaluate_folders
from ..metrics.optional import opencv_if_installed
from ..stop_signal import interrupt_of
from .data import Pair, TrainingData, find_sets, find_training
from .data.folders import fingerprint
from .loop import Progress, train
from .recipe import Recipe, differences
from .run_folder import RunFolder

logger = logging.getLogger(__name__)

SCORES = ("maxF", "wF", "MAE", "Sm", "meanE", "HCE")  # columns of Tab. 1-3
SCORES_FILE = "scores.json"  # in the folder of a run that is done
Figures = tuple[float, ...]  # in the order of SCORES

# What each part switches on in a network; RLFT is a phase of the training.
PARTS: dict[str, dict[str, Any]] = {
    "RM": {"reconstruction_block": "deformable_aspp"},
    "InRef": {"inward_reference": True},
    "OutRef": {"outward_reference": True},
    "CFF": {"context_fusion": 3},
    "IPT": {"image_pyramid": "cat"},
    "RLFT": {},
    "MSS": {"multi_stage_supervision": True},
}
_NOTHING: dict[str, Any] = {
    "reconstruction_block": "residual",
    "inward_reference": False,
    "outward_reference": False,
    "context_fusion": 0,
    "image_pyramid": "none",
    "multi_stage_supervision": False,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table of the paper.

    Attributes:
        name: For the command line, and of its folder.
        title: For tables.
        table: Table of the paper.
        parts: Which of ``PARTS`` it has.
        against: Name of the row it is compared with; "" for none.
        paper: The paper's scores on DIS-VD; () where it has none.
        paper_against: The paper's scores it is compared with; () for those of ``against``.
    """

    name: str
    title: str
    table: str
    parts: tuple[str, ...]
    against: str = ""
    paper: Figures = ()
    paper_against: Figures = ()

    def recipe(self, base: Recipe, seed: int) -> Recipe:
        """The recipe of a run: the base with this row's parts and a seed."""
        network = dict(_NOTHING)
        for part in self.parts:
            network |= PARTS[part]
        options = {f"network.{key}": value for key, value in network.items()}
        return base.replace(rlft=base.rlft if "RLFT" in self.parts else 0, seed=seed, **options)


_BIREF = ("RM", "InRef", "OutRef")
ROWS = (
    Row(name="baseline", title="baseline", table="Tab. 2", parts=("MSS",),
        paper=(0.837, 0.785, 0.056, 0.845, 0.887, 1204)),
    Row(name="rm", title="+ RM", table="Tab. 2", parts=("RM", "MSS"), against="baseline",
        paper=(0.855, 0.831, 0.048, 0.865, 0.895, 1167)),
    Row(name="inref", title="+ InRef", table="Tab. 2", parts=("InRef", "MSS"), against="baseline",
        paper=(0.848, 0.825, 0.050, 0.857, 0.903, 1152)),
    Row(name="outref", title="+ OutRef", table="Tab. 2", parts=("OutRef", "MSS"), against="baseline"),
    Row(name="rm-inref", title="+ RM + InRef", table="Tab. 2", parts=("RM", "InRef", "MSS"), against="baseline",
        paper=(0.869, 0.834, 0.041, 0.886, 0.912, 1093)),
    Row(name="rm-outref", title="+ RM + OutRef", table="Tab. 2", parts=("RM", "OutRef", "MSS"), against="baseline",
        paper=(0.863, 0.831, 0.042, 0.891, 0.918, 1106)),
    Row(name="inref-outref", title="+ InRef + OutRef", table="Tab. 2", parts=("InRef", "OutRef", "MSS"),
        against="baseline", paper=(0.861, 0.839, 0.044, 0.881, 0.911, 1114)),
    Row(name="biref", title="+ RM + InRef + OutRef", table="Tab. 2", parts=(*_BIREF, "MSS"), against="baseline",
        paper=(0.889, 0.851, 0.038, 0.900, 0.924, 1065)),
    Row(name="cff", title="these three + CFF", table="Tab. 3", parts=(*_BIREF, "CFF", "MSS"), against="biref",
        paper=(0.893, 0.856, 0.038, 0.904, 0.928, 1054)),
    Row(name="ipt", title="these three + IPT", table="Tab. 3", parts=(*_BIREF, "IPT", "MSS"), against="biref",
        paper=(0.895, 0.857, 0.037, 0.904, 0.927, 1051)),
    Row(name="rlft", title="these three + RLFT", table="Tab. 3", parts=(*_BIREF, "RLFT", "MSS"), against="biref",
        paper=(0.890, 0.861, 0.036, 0.899, 0.932, 1043)),
    Row(name="all", title="everything", table="Tab. 3", parts=tuple(PARTS), against="biref",
        paper=(0.897, 0.863, 0.036, 0.905, 0.937, 1039)),
    # Tab. 1 compares at 200 epochs, so that "with MSS" has other figures than the row above.
    Row(name="no-mss", title="everything but MSS", table="Tab. 1", parts=tuple(p for p in PARTS if p != "MSS"),
        against="all", paper=(0.875, 0.848, 0.041, 0.886, 0.914, 1207),
        paper_against=(0.892, 0.858, 0.037, 0.901, 0.932, 1043)),
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Results of one training.

    Attributes:
        row: Name of the row.
        seed: Of the training.
        scores: Keys as ``SCORES``; HCE only where OpenCV is installed.
        parameters: Number of the network's parameters.
        steps: Optimizer steps.
    """

    row: str
    seed: int
    scores: Mapping[str, float]
    parameters: int
    steps: int


def choose_rows(names: Sequence[str]) -> tuple[Row, ...]:
    """The rows of these names, in the paper's order, all of them for no names.

    Raises:
        ConfigError: A name no row has.
    """
    known = {row.name: row for row in ROWS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"row {', '.join(unknown)} is not known; choose from {', '.join(known)}.")
    return tuple(row for row in ROWS if not names or row.name in names)


def ablate(
    rows: Sequence[Row],
    base: Recipe,
    data: TrainingData,
    out: Path,
    *,
    seeds: int,
    device: str = "auto",
    progress: Progress | None = None,
) -> Iterator[Run]:
    """Trains and scores each row with each seed; finished runs are read, not repeated.

    All rows of a seed come before the next seed, so that the rows can be compared at any time.

    Args:
        rows: Networks to compare.
        base: The recipe of all rows; its ``rlft`` is for the rows with RLFT.
        data: Training data, and validation data in folders of images and masks.
        out: Folder of the results, one below it for each row and seed.
        seeds: Number of trainings of each row.
        device: "auto", "cpu", "cuda", ...
        progress: Called after each step.

    Raises:
        DatasetError: Validation data that ``evaluate`` cannot read.
        ConfigError: A folder of another ablation.
        KeyboardInterrupt: A training was stopped by a signal; the next call goes on with it.
    """
    if seeds < 1:
        raise ConfigError(f"seeds={seeds}: expected at least 1.")
    validation = find_sets(data.validation).pairs
    truths = _masks(validation)
    training = find_training(data).pairs
    names = [fingerprint(training, validation), fingerprint((*training, *validation))]  # the latter by version 0.1
    last_only = base.replace(validate_every=base.epochs)  # so that the weights scored are those after the last step
    for seed in range(seeds):
        for row in rows:
            recipe, folder = row.recipe(last_only, seed), run_folder(out, row, seed)
            done = _read(folder, recipe, names)
            if done is None:
                logger.info("%s, seed %d", row.title, seed)
                result = train(recipe, data, folder.path, device=device, resume=True, progress=progress)
                if result.signal is not None:
                    raise interrupt_of(result.signal)
                scores, parameters = _score(folder, [pair.image for pair in validation], truths, device)
                run = {"data": names[0], **recipe.to_flat()}
                done = {"run": run, "scores": scores, "parameters": parameters, "steps": result.steps}
                folder.write_text(SCORES_FILE, json.dumps(done, indent=1) + "\n")
                # For resuming only, and five times as large as the network. Another run may have ended it at once.
                folder.last.unlink(missing_ok=True)
            yield Run(
                row=row.name, seed=seed, scores=done["scores"], parameters=done["parameters"], steps=done["steps"]
            )


def run_folder(out: Path, row: Row, seed: int) -> RunFolder:
    """The folder of one training of an ablation in ``out``."""
    return RunFolder(out / row.name / f"seed{seed}")


def mask_of(folder: RunFolder, truth: Path) -> Path:
    """The file of the mask that is scored against a ground truth."""
    return folder.path / "masks" / f"{truth.stem}.png"


def _masks(pairs: Sequence[Pair]) -> list[Path]:
    """The masks of the validation pairs, which ``evaluate`` needs in one folder."""
    masks = [pair.mask for pair in pairs if pair.mask is not None]
    if len(masks) < len(pairs) or len({mask.parent for mask in masks}) != 1:
        raise DatasetError("an ablation is scored on one folder of masks: give --val-data DIR with im/ and gt/.")
    return masks


def _read(folder: RunFolder, recipe: Recipe, data: Sequence[str]) -> dict[str, Any] | None:
    """The results of a finished run; None where there are none."""
    path = folder.path / SCORES_FILE
    if not os.path.exists(path):
        return None
    try:
        done = json.loads(path.read_text(encoding="utf-8"))
        was = dict(done["run"])
        other = [f"data: {was['data']!r} then, {data[0]!r} now"] if was["data"] not in data else []
        del was["data"]
        if changes := other + differences(was, recipe):
            raise ConfigError(
                f"{folder.path} holds another run ({', '.join(changes[:5])}). Choose another folder for this one."
            )
        return {key: done[key] for key in ("scores", "parameters", "steps")}
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not the scores of a run. Delete {folder.path} to repeat the run.") from error


def _score(
    folder: RunFolder, images: Sequence[Path], truths: Sequence[Path], device: str
) -> tuple[dict[str, float], int]:
    """Masks of the validation images, written below the folder, and their scores; and the network's parameters."""
    model = load_model(folder.best, device=choose_device(device))
    segment = Segmenter(model)
    for image, truth in zip(images, truths, strict=True):
        write_mask(mask_of(folder, truth), segment(read_image(image)[None])[0])
    keys = [key for key in SCORES if key != "HCE" or opencv_if_installed()]
    scores = evaluate_folders(folder.path / "masks", truths[0].parent, metrics=keys, allow_missing=True)
    return scores, sum(parameter.numel() for parameter in model.parameters())
