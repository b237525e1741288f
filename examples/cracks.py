"""Crack detection from start to end (Sec. 5 of the paper): make data, fine-tune, compare before and after.

    pip install scikit-image
    python examples/cracks.py --output crack_output [--surfaces DIR] [--init MODEL] [--epochs 25] [--resume]

The surfaces are pieces of real ones: of the photographs in --surfaces, or of the brick, gravel and grass that
scikit-image carries. Those of the test are cut from other parts of the photographs. The cracks are drawn: branching
random walks, darker than what they run through. It starts from the small checkpoint that comes with the pack.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from a checkout, without installing

import numpy as np  # noqa: E402
from PIL import Image, ImageDraw, ImageFilter, ImageFont  # noqa: E402

import birefnet_core as bc  # noqa: E402
from birefnet_core.cli.main import exit_code  # noqa: E402
from birefnet_core.cli.outputs import prepare_folder  # noqa: E402
from birefnet_core.cli.train import ProgressBar  # noqa: E402
from birefnet_core.images import list_images, read_image, to_bytes, write_mask  # noqa: E402
from birefnet_core.stop_signal import STOPPED  # noqa: E402
from birefnet_core.training import TrainingData, from_values, load_recipe, train  # noqa: E402

PACKAGED = ("brick", "gravel", "grass")  # surfaces in scikit-image
TRAINING_SHARE = 0.6  # of each photograph's width; the test's surfaces are cut from the rest
SCORES = ("Sm", "maxF", "wF", "meanE", "MAE", "HCE")
ROWS, TITLE = 5, 16  # of the comparison: test images; pixels for the columns' names


def draw_crack(random: np.random.RandomState, side: int) -> Image.Image:
    """A mask of a crack that crosses the image and branches."""
    mask = Image.new("L", (4 * side, 4 * side))  # drawn large and shrunk: soft edges
    draw = ImageDraw.Draw(mask)
    walks = [(np.array([0.0, random.uniform(0.2, 0.8)]), random.uniform(-0.3, 0.3), random.uniform(2.5, 5))]
    while walks:
        place, angle, width = walks.pop()
        while place.min() >= 0 and place.max() <= 1 and width > 1:
            angle += random.normal(0, 0.35)
            after = place + 0.04 * np.array([np.cos(angle), np.sin(angle)])
            draw.line([tuple(4 * side * place), tuple(4 * side * after)], fill=255, width=round(4 * width))
            place, width, angle = after, width * random.uniform(0.93, 1.05), 0.9 * angle
            if random.rand() < 0.08 and len(walks) < 3:
                walks.append((place.copy(), angle + random.choice([-0.9, 0.9]), 0.7 * width))
    return mask.resize((side, side), Image.LANCZOS)


def read_surfaces(folder: Path | None, side: int) -> list[Image.Image]:
    """The photographs in a folder, or those in scikit-image.

    Raises:
        ConfigError: There are none, one is too small to cut pieces out of it, or scikit-image is not installed.
        ImageError: One cannot be read.
    """
    if folder is None:
        try:
            from skimage import data
        except ImportError as error:
            raise bc.ConfigError(
                "the surfaces come from scikit-image: pip install scikit-image; or give photographs of your own by "
                "--surfaces DIR."
            ) from error
        return [Image.fromarray(getattr(data, name)()).convert("RGB") for name in PACKAGED]
    paths = list_images(folder, recursive=True) if folder.is_dir() else []
    if not paths:
        raise bc.ConfigError(f"{folder}: no photographs of surfaces in it.")
    surfaces = [Image.fromarray(to_bytes(read_image(path))) for path in paths]
    for path, (width, height) in zip(paths, (image.size for image in surfaces), strict=True):
        if min((1 - TRAINING_SHARE) * width, height) < side / 2:
            least = round(side / 2 / (1 - TRAINING_SHARE)) + 1
            raise bc.ConfigError(
                f"{path}: {width} x {height} pixels are too few to cut pieces for images of {side}; expected at least "
                f"{least} x {side // 2}. Take it out of the folder, or give a smaller --size."
            )
    return surfaces


def cut_piece(random: np.random.RandomState, surface: Image.Image, side: int, *, test: bool) -> Image.Image:
    """A piece of a surface, turned, tinted, and made darker or lighter."""
    width, height = surface.size
    edge = round(TRAINING_SHARE * width)
    first, last = (edge, width) if test else (0, edge)
    most = min(last - first, height, 2 * side)
    cut = int(random.randint(min(side, most), most + 1))
    left, top = random.randint(first, last - cut + 1), random.randint(height - cut + 1)
    piece = surface.crop((left, top, left + cut, top + cut)).resize((side, side), Image.LANCZOS)
    light = random.uniform(0.8, 1.4) * random.uniform(0.85, 1.15, 3)  # of red, green, blue
    turned = np.asarray(piece.rotate(90 * int(random.randint(4))))
    return Image.fromarray((turned * light).clip(0, 255).astype(np.uint8))


def make_data(folder: Path, surfaces: Sequence[Image.Image], count: int, side: int, *, test: bool) -> Path:
    """Writes images/ and masks/.

    Raises:
        ConfigError: The folder holds other files, which would be taken for data.
    """
    random = np.random.RandomState(int(test))
    names = [f"crack{i:03d}.png" for i in range(count)]
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        if others := {path.name for path in (folder / kind).iterdir()} - set(names):
            raise bc.ConfigError(f"{folder / kind} holds other files ({min(others)}): choose another --output.")
    for i, name in enumerate(names):
        mask = draw_crack(random, side)
        ground = cut_piece(random, surfaces[i % len(surfaces)], side, test=test)
        dark = ground.point(lambda value: value * 0.3)
        depth = mask.filter(ImageFilter.GaussianBlur(0.7)).point(lambda value: value * 0.9)
        Image.composite(dark, ground, depth).save(folder / "images" / name)
        mask.point(lambda value: 255 * (value > 127)).save(folder / "masks" / name)
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("crack_output"))
    parser.add_argument("--surfaces", type=Path, metavar="DIR", help="photographs of surfaces; else scikit-image's")
    parser.add_argument("--init", default="demo", help="checkpoint to start from (%(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="1e-4 for a published checkpoint (%(default)s)")
    parser.add_argument("--images", type=int, default=48, help="to train on; a quarter more to test (%(default)s)")
    parser.add_argument("--epochs", type=int, default=25, help="(%(default)s)")
    parser.add_argument("--size", type=int, default=192, help="of the images, a multiple of 32 (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on with a training that was stopped")
    args = parser.parse_args(arguments)
    return exit_code(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """Makes the data, trains, and compares."""
    recipe = from_values(load_recipe(ROOT / "train" / "recipes" / "finetune.toml")).replace(
        name="cracks", init=args.init, size=args.size, epochs=args.epochs, decoder_epochs=min(2, args.epochs - 1),
        batch_size=4, accumulate=1, lr=args.lr, backbone_lr=args.lr / 2, checkpoint_activations=False, workers=0,
        validate_every=max(1, args.epochs // 5), best="maxF",
    )  # fmt: skip
    out, surfaces = args.output, read_surfaces(args.surfaces, args.size)
    prepare_folder(out, "--output")
    data = TrainingData(
        sets=(make_data(out / "train", surfaces, args.images, args.size, test=False),),
        validation=(make_data(out / "test", surfaces, max(1, args.images // 4), args.size, test=True),),
    )
    before = segment_all(bc.load_model(args.init), out, "before")
    result = train(recipe, data, out / "run", resume=args.resume, progress=ProgressBar(quiet=False))
    if result.signal is not None:
        print("stopped; --resume goes on", file=sys.stderr)
        return STOPPED
    after = segment_all(bc.load_model(out / "run" / "best.safetensors"), out, "after")
    compare(out).save(out / "cracks.png")
    print("        " + "".join(f"{name:>8}" for name in SCORES))
    for name, scores in (("before", before), ("after", after)):
        print(f"{name:8}" + "".join(f"{scores[key]:8.1f}" if key == "HCE" else f"{scores[key]:8.3f}" for key in SCORES))
    print(f"comparison: {out / 'cracks.png'}; the training: {out / 'run' / 'report.md'}")
    return 0


def segment_all(model: bc.BiRefNet, folder: Path, name: str) -> dict[str, float]:
    """Masks of the test images, and their scores."""
    segment = bc.Segmenter(model)
    for path in sorted((folder / "test" / "images").iterdir()):
        write_mask(folder / name / path.name, segment(read_image(path)[None])[0])
    return bc.evaluate(folder / name, folder / "test" / "masks", metrics=SCORES)


def compare(folder: Path) -> Image.Image:
    """One line for each of the first test images: the image, its truth, the masks before and after."""
    columns = {"image": "test/images", "truth": "test/masks", "before": "before", "after": "after"}
    names = sorted(path.name for path in (folder / "after").iterdir())[:ROWS]
    side = Image.open(folder / "after" / names[0]).width + 4
    sheet = Image.new("RGB", (len(columns) * side, TITLE + len(names) * side), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for column, (title, place) in enumerate(columns.items()):
        draw.text((column * side + 4, 2), title, fill="black", font=font)
        for row, name in enumerate(names):
            with Image.open(folder / place / name) as tile:
                sheet.paste(tile.convert("RGB"), (column * side, TITLE + row * side))
    return sheet


if __name__ == "__main__":
    sys.exit(main())
