"""Crack detection from start to end (Sec. 5 of the paper): make data, fine-tune, compare before and after.

    pip install -r requirements-train.txt
    python examples/cracks.py --output crack_output [--init MODEL] [--recipe shapes] [--epochs 40] [--resume]

The surfaces are pieces of real ones (brick, gravel and grass, photographs that scikit-image carries); those of the test
are cut from other parts of the pictures. The cracks are drawn: branching random walks, darker than what they run
through. Without --init a small network starts from random weights.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from a checkout, without installing

import numpy as np  # noqa: E402
from PIL import Image, ImageDraw, ImageFilter  # noqa: E402

import birefnet_core as bc  # noqa: E402
from birefnet_core.images import read_image, write_mask  # noqa: E402
from birefnet_core.training import TrainingData, from_values, load_recipe, train  # noqa: E402

SURFACES = ("brick", "gravel", "grass")
TRAINING_SHARE = 0.7  # of each picture's width; the test's surfaces are cut from the rest


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


def read_surfaces() -> list[Image.Image]:
    """The pictures in scikit-image.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise bc.ConfigError("the surfaces come from scikit-image: pip install -r requirements-train.txt") from error
    return [Image.fromarray(getattr(data, name)()).convert("RGB") for name in SURFACES]


def surface(random: np.random.RandomState, picture: Image.Image, side: int, *, test: bool) -> Image.Image:
    """A piece of a picture, turned, tinted, and made darker or lighter."""
    width, height = picture.size
    edge = round(TRAINING_SHARE * width)
    first, last = (edge, width) if test else (0, edge)
    cut = int(random.randint(side, min(last - first, 2 * side) + 1))
    left, top = random.randint(first, last - cut + 1), random.randint(height - cut + 1)
    piece = picture.crop((left, top, left + cut, top + cut)).resize((side, side), Image.LANCZOS)
    light = random.uniform(0.8, 1.4) * random.uniform(0.85, 1.15, 3)  # of red, green, blue
    turned = np.asarray(piece.rotate(90 * int(random.randint(4))))
    return Image.fromarray((turned * light).clip(0, 255).astype(np.uint8))


def make_data(folder: Path, count: int, side: int, *, test: bool) -> Path:
    """Writes images/ and masks/."""
    random, pictures = np.random.RandomState(int(test)), read_surfaces()
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        mask = draw_crack(random, side)
        ground = surface(random, pictures[i % len(pictures)], side, test=test)
        dark = ground.point(lambda value: value * 0.3)
        depth = mask.filter(ImageFilter.GaussianBlur(0.7)).point(lambda value: value * 0.9)
        Image.composite(dark, ground, depth).save(folder / "images" / f"crack{i:03d}.png")
        mask.point(lambda value: 255 * (value > 127)).save(folder / "masks" / f"crack{i:03d}.png")
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("crack_output"))
    parser.add_argument("--init", help="checkpoint to start from; without it a small new network")
    parser.add_argument("--recipe", default="shapes", help="shapes, or finetune for a published checkpoint")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    try:
        data = TrainingData(
            sets=(make_data(args.output / "train", args.images, args.size, test=False),),
            validation=(make_data(args.output / "test", max(6, args.images // 4), args.size, test=True),),
        )
        # The rates of "shapes" suit small networks; a published one learns with those of "finetune".
        values = load_recipe(ROOT / "train" / "recipes" / f"{args.recipe}.toml")
        recipe = from_values({**values, "backbone": "", "init": ""} if args.init else values).replace(
            name="cracks", size=args.size, epochs=args.epochs, batch_size=4, accumulate=1, best="meanF", sheet=4,
            validate_every=max(1, args.epochs // 4), workers=0, **({"init": args.init} if args.init else {}),
        )  # fmt: skip
        before = segment_all(bc.load_model(args.init), args.output, "before") if args.init else None
        result = train(recipe, data, args.output / "run", resume=args.resume)
        if not result.finished:
            print("stopped; --resume goes on")
            return 130
        after = segment_all(bc.load_model(args.output / "run" / "best.safetensors"), args.output, "after")
    except bc.BiRefNetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if before is not None:
        print("before", before)
    print("after ", after)
    print(f"pictures: {result.folder / 'samples'}")
    return 0


def segment_all(model: bc.BiRefNet, folder: Path, name: str) -> dict[str, float]:
    """Masks of the test images, and their scores."""
    segment = bc.Segmenter(model)
    for path in sorted((folder / "test" / "images").iterdir()):
        write_mask(folder / name / path.name, segment(read_image(path)[None])[0])
    return bc.evaluate(folder / name, folder / "test" / "masks", metrics=["Sm", "maxF", "meanF", "MAE"])


if __name__ == "__main__":
    sys.exit(main())
