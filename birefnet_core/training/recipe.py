"""Recipes: everything that decides how a network is trained, apart from the data and the folder of results."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoint_info import LARGEST_SIDE
from ..config import BACKBONES, BiRefNetConfig
from ..errors import ConfigError
from ..files import possible
from ..losses import LossWeights
from ..network.birefnet import SIZE_MULTIPLE
from ..placeholders import what_it_holds
from ..text import did_you_mean, first_line
from .data.augment import Augmentation

DEFAULT_BACKBONE = "swin_v1_t"
SCORES = ("Sm", "maxF", "meanF", "maxE", "meanE", "MAE")  # of a validation, by the keys of an evaluation

_CHOICES: dict[str, tuple[Any, ...]] = {
    "backbone": ("", *BACKBONES),
    "train": ("all", "decoder", "lora"),
    "classes": ("none", "file_name"),
    "optimizer": ("adam", "adamw"),
    "schedule": ("constant", "cosine", "step"),
    "amp": ("auto", "off", "bf16", "fp16"),
    "best": SCORES,
}
# Smallest values; None where the field may be any number.
_LEAST: dict[str, float] = {
    "decoder_epochs": 0, "bn_least_batch": 1, "lora_rank": 1, "lora_alpha": 0, "batch_size": 1, "accumulate": 1,
    "epochs": 1, "rlft": 0,
    "lr": 0, "backbone_lr": 0, "weight_decay": 0, "warmup_steps": 0, "lr_floor": 0, "lr_factor": 0, "clip": 0,
    "ema": 0, "validate_every": 1, "val_fraction": 0, "sheet": 0, "save_steps": 0, "log_steps": 1, "workers": 0,
}  # fmt: skip
_MOST_WORKERS = 256
# Fields that change how fast a training runs or what it reports, not what it computes.
PRACTICAL = ("matting", "workers", "sheet", "log_steps", "save_steps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        name: What the recipe is called.
        init: Checkpoint to start from (catalogue name, Hub repository, file); "" for a new network.
        backbone: Encoder of a new network; "" for that of ``init``, or Swin-T.
        encoder: Pretrained encoder of a new network: a file, or an installed package that holds it; "" for random ones.
        network: Other options of a new network, as of ``BiRefNetConfig``.
        matting: The masks are alpha mattes: binary ones are warned of, and flat grey is no problem. Always so for
            matting checkpoints of the catalogue.
        train: "all" parameters, the "decoder" only, or low-rank adapters ("lora").
        decoder_epochs: First epochs in which the encoder is frozen although ``train`` is "all"; at most a quarter.
        freeze_bn: BatchNorm keeps its statistics. Always so at batch size 1 and for "lora"; see ``bn_least_batch``.
        bn_least_batch: With ``init``, BatchNorm keeps its statistics at batch sizes below this: those of so few images
            spoil a trained network from the first steps on. 2 trains them at batch size 2. ``sync_bn`` overrides it.
        lora_rank: Rank of the adapters.
        lora_alpha: Their scale, divided by the rank.
        classes: "file_name" reads the auxiliary class from DIS5K's file names, "none" leaves it out.
        size: Width and height of the network's input in pixels, multiples of 32.
        dynamic: Least and greatest side in pixels; each batch has a random square size between. () for ``size``.
        growth: Sides in pixels of square inputs, each for an equal part of the training, the last part at ``size``:
            most is learned at small sizes, in a fraction of the time. () for ``size`` throughout.
        batch_size: Images of a device's batch.
        accumulate: Batches of one optimizer step.
        epochs: Passes over the data.
        rlft: Last epochs with the IoU loss only (region-level fine-tuning, Sec. 3.6).
        loss: Weights of the terms, in the units of ``HybridLoss`` (batch means).
        optimizer: "adam" or "adamw".
        lr: Learning rate.
        backbone_lr: Learning rate of the encoder; 0 for ``lr``.
        weight_decay: Of the weights of convolutions and linear layers; norms, biases, tables of
            position biases and tokens have none.
        schedule: "constant", "cosine" from ``lr`` to ``lr * lr_floor``, or "step": times ``lr_factor`` at each of
            ``lr_epochs``.
        lr_epochs: See ``schedule``.
        lr_factor: See ``schedule``.
        lr_floor: See ``schedule``.
        warmup_steps: Steps in which the rate rises to its value; at most a tenth.
        clip: Greatest norm of the gradient; 0 for no limit.
        ema: Decay of the moving average of the weights, which is validated and saved; 0 for none.
        amp: Data type of autocast: "auto" is bf16, or else fp16, on CUDA and float32 elsewhere; "off" is float32.
        checkpoint_activations: Recompute activations in the backward pass: less memory, more time.
        channels_last: Memory format of weights and activations: faster for convolutional encoders, on CPUs and in
            reduced precision on GPUs.
        compile: torch.compile the network.
        sync_bn: BatchNorm over all processes.
        augment: Augmentation of images and masks.
        val_fraction: Fraction of the data held out for validation where no validation data are given.
        validate_every: Epochs from one validation to the next.
        best: Score that decides which network is the best.
        sheet: Images on the sample sheet of a validation.
        save_steps: Steps between savings of ``last.pt``, besides the one after each epoch; 0 for none.
        log_steps: Steps between lines of ``metrics.jsonl``, besides the one after each epoch.
        workers: Worker processes that read data.
        seed: Of everything random.

    Raises:
        ConfigError: A value out of range; the message lists the possible ones.
    """

    name: str = "custom"
    init: str = ""
    backbone: str = ""
    encoder: str = ""
    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    matting: bool = False
    train: str = "all"
    decoder_epochs: int = 0
    freeze_bn: bool = False
    bn_least_batch: int = 3
    lora_rank: int = 8
    lora_alpha: float = 16.0
    classes: str = "none"
    size: tuple[int, int] = (1024, 1024)
    dynamic: tuple[int, ...] = ()
    growth: tuple[int, ...] = ()
    batch_size: int = 4
    accumulate: int = 1
    epochs: int = 100
    rlft: int = 0
    loss: LossWeights = dataclasses.field(
        default_factory=lambda: LossWeights(bce=30, iou=0.5, ssim=10, ce=5, gradient=1)  # Sec. 3.5
    )
    optimizer: str = "adamw"
    lr: float = 1e-4
    backbone_lr: float = 0.0
    weight_decay: float = 1e-2
    schedule: str = "constant"
    lr_epochs: tuple[int, ...] = ()
    lr_factor: float = 0.1
    lr_floor: float = 0.0
    warmup_steps: int = 0
    clip: float = 0.0
    ema: float = 0.0
    amp: str = "auto"
    checkpoint_activations: bool = False
    channels_last: bool = False
    compile: bool = False
    sync_bn: bool = False
    augment: Augmentation = dataclasses.field(default_factory=Augmentation)
    val_fraction: float = 0.1
    validate_every: int = 1
    best: str = "Sm"
    sheet: int = 6
    save_steps: int = 0
    log_steps: int = 10
    workers: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in _field_types(Recipe):
            object.__setattr__(self, name, _convert(Recipe, name, getattr(self, name)))
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(_unknown(name, value, choices))
        for name, least in _LEAST.items():
            if not least <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected a number of at least {least}.")
        for name in ("lr_factor", "lr_floor"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected at most 1, for the rate falls by it.")
        if self.workers > _MOST_WORKERS:
            raise ConfigError(f"workers={self.workers}: expected at most {_MOST_WORKERS}, each is a process.")
        self._check_sizes()
        self._check_together()

    def _check_sizes(self) -> None:
        if len(self.size) != 2 or len(self.dynamic) not in (0, 2):
            raise ConfigError("size takes width and height, dynamic the least and the greatest side.")
        for side in (*self.size, *self.dynamic, *self.growth):
            if side != (nearest := min(max(1, round(side / SIZE_MULTIPLE)) * SIZE_MULTIPLE, LARGEST_SIDE)):
                raise ConfigError(f"size {side}: expected a multiple of {SIZE_MULTIPLE}, such as {nearest}.")
        if self.dynamic and self.dynamic[0] > self.dynamic[1]:
            raise ConfigError(f"dynamic={self.dynamic}: the least side comes first.")
        if self.dynamic and self.growth:
            raise ConfigError("dynamic and growth both choose the size of a batch: give one of them.")

    def _check_together(self) -> None:
        if self.rlft > self.epochs:
            raise ConfigError(f"rlft={self.rlft} is more than epochs={self.epochs}.")
        if self.rlft and not self.loss.iou:
            raise ConfigError(f"rlft={self.rlft} epochs of the IoU loss only, but its weight is 0: set rlft to 0.")
        if self.ema >= 1 or self.val_fraction >= 1:
            raise ConfigError(f"ema={self.ema}, val_fraction={self.val_fraction}: expected numbers below 1.")
        if not self.lr and (not self.backbone_lr or self.train == "decoder"):
            raise ConfigError("lr=0: nothing would be learned. Give a rate, such as 1e-4.")
        if self.decoder_epochs and self.train != "all":
            raise ConfigError(f"decoder_epochs={self.decoder_epochs} needs train='all'; found {self.train!r}.")
        if self.train == "lora" and not self.init:
            raise ConfigError("train='lora' adapts a trained network: name one with init.")
        if self.train == "lora" and not self.lora_alpha:
            raise ConfigError("lora_alpha=0: the adapters would change nothing. Give their scale, such as 16.")
        if self.schedule == "step" and not self.lr_epochs:
            raise ConfigError("schedule='step' needs lr_epochs, the epochs at which the rate falls.")
        if any(epoch < 1 for epoch in self.lr_epochs):
            raise ConfigError(f"lr_epochs={self.lr_epochs}: expected epochs from 1 on; they count from the beginning.")
        if self.classes != "none" and not self.loss.ce:
            raise ConfigError("classes are read but the weight of ce is 0: set classes to 'none'.")
        if self.encoder and self.init:
            raise ConfigError(
                f"encoder={self.encoder!r} is for a new network, and would replace the trained encoder of "
                f"init={self.init!r}: leave encoder out, or name a backbone instead of init."
            )
        if self.network:
            if self.init:
                raise ConfigError("network options belong to a new network; with init the checkpoint decides.")
            BiRefNetConfig.from_dict({"backbone": self.backbone or DEFAULT_BACKBONE, **self.network})

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some fields changed; keys as "loss.iou" and "augment.flip" change one of a table.

        Another ``train`` than "all" sets ``decoder_epochs`` to 0 unless they are given too: there is nothing left for
        them to mean.
        """
        if changes.get("train", "all") != "all":
            changes = {"decoder_epochs": 0, **changes}
        return from_values({**self.to_flat(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, tables as dictionaries."""
        values = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def to_flat(self) -> dict[str, Any]:
        """Plain values under one level of keys, those of tables as "loss.iou"."""
        return _flatten(self.to_dict())

    def to_toml(self) -> str:
        """The recipe as a file that ``load_recipe`` reads."""
        values = self.to_dict()
        tables = {key: values.pop(key) for key in ("loss", "augment", "network")}
        lines = [f"{key} = {_toml(value)}" for key, value in values.items()]
        for name, table in tables.items():
            lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
        return "\n".join(lines) + "\n"


_MOST_BYTES = 1 << 18  # of a recipe's file

_TABLES: dict[str, type] = {"loss": LossWeights, "augment": Augmentation}


def field_names() -> dict[str, Any]:
    """Type of every field, those of tables as "loss.iou"; "network" is a table of its own."""
    types: dict[str, Any] = {}
    for name, kind in _field_types(Recipe).items():
        if name in _TABLES:
            types.update({f"{name}.{key}": inner for key, inner in _field_types(_TABLES[name]).items()})
        else:
            types[name] = kind
    return types


def from_values(values: Mapping[str, Any]) -> Recipe:
    """A recipe from fields, in tables or under keys as "loss.iou"; what is left out has its default.

    Raises:
        ConfigError: A field no recipe has, or a value out of range.
    """
    flat, known = _flatten(values), field_names()
    top: dict[str, Any] = {"network": {}}
    tables: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        table, _, inner = key.partition(".")
        if table == "network":
            if not inner:
                raise ConfigError(f"network={value!r}: expected a table of options, such as image_pyramid.")
            top["network"][inner] = value
        elif key not in known:
            raise ConfigError(_unknown("field", key, tuple(known)))
        elif inner:
            tables.setdefault(table, {})[inner] = _convert(_TABLES[table], inner, value)
        else:
            top[key] = value
    for name, fields in tables.items():
        top[name] = _TABLES[name](**fields)
    return Recipe(**top)


def differences(stored: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """What another run computes differently.

    Args:
        stored: Fields of its recipe, as from ``Recipe.to_flat``; those that its version did not have are at their
            defaults.
        recipe: The recipe of this run.
    """
    was, now = (json.loads(json.dumps(values)) for values in ({**Recipe().to_flat(), **stored}, recipe.to_flat()))
    names = [name for name in {**was, **now} if name not in PRACTICAL and was.get(name) != now.get(name)]
    return [f"{name}: {was.get(name)!r} then, {now.get(name)!r} now" for name in names]


def load_recipe(path: str | Path) -> dict[str, Any]:
    """The fields in a TOML file, for ``from_values``.

    Raises:
        ConfigError: Not there, or not TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise ConfigError("recipes need Python 3.11, or: pip install tomli") from error
    try:
        with open(possible(path), "rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            held = what_it_holds(content) or f"more than {_MOST_BYTES >> 10} KiB"
            raise ConfigError(f"{path}: not a recipe in TOML ({held}).")
        return tomllib.loads(content.decode("utf-8-sig"))  # some editors of Windows begin files with a mark
    except OSError as error:
        raise ConfigError(f"{path}: the recipe cannot be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a recipe in TOML ({what_it_holds(content) or first_line(error)}).") from error


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    if prefix.count(".") > 1:  # no recipe has tables in tables; a file may have any number
        raise ConfigError(_unknown("field", prefix.rstrip("."), tuple(field_names())))
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _toml(value: Any) -> str:
    """JSON's notation, which is also TOML's, except for the surrogate pairs that JSON may escape characters to.

    A text that is not Unicode, such as the name of a file in another encoding, is a list of ``_BYTES`` and its bytes.
    """
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        return json.dumps([_BYTES, value.encode("utf-8", "surrogatepass").hex()])
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@functools.cache
def _field_types(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _convert(cls: type, name: str, value: Any) -> Any:
    """A value of the field's type: whole floats pass as integers, integers as floats, lists as tuples."""
    kind = _field_types(cls)[name]
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        items = value if isinstance(value, (list, tuple)) else (value,)
        if name == "size" and len(items) == 1:
            items = (*items, *items)
        return tuple(_convert_number(name, item, inner) for item in items)
    if kind in (int, float):
        return _convert_number(name, value, kind)
    if kind is str and isinstance(value, list) and len(value) == 2 and value[0] == _BYTES:
        with contextlib.suppress(TypeError, ValueError):
            return bytes.fromhex(value[1]).decode("utf-8", "surrogatepass")
    if isinstance(kind, type) and not isinstance(value, kind):
        raise ConfigError(f"{name}={value!r}: expected {_KINDS.get(kind, kind.__name__)}.")
    return value


_BYTES = "bytes in hexadecimal"
_GREATEST = 2**63 - 1  # of a whole number in a recipe

_KINDS = {bool: "true or false", str: "a text", int: "a whole number", float: "a number"}


def _convert_number(name: str, value: Any, kind: type) -> int | float:
    if isinstance(value, float):
        number = math.isfinite(value)
    else:
        number = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _GREATEST
    if kind is float and number:
        return float(value)
    if kind is int and number and abs(value) <= _GREATEST and float(value).is_integer():
        return int(value)
    raise ConfigError(f"{name}={value!r}: expected {_KINDS.get(kind, kind)}.")


def _unknown(what: str, value: Any, known: tuple[Any, ...]) -> str:
    choices = ", ".join(str(choice) for choice in known if choice != "")
    return f"{what} {value!r} is not known; choose one of {choices}.{did_you_mean(value, known)}"
