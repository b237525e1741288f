"""Crack detection from start to end (Sec. 5 of the paper): make data, fine-tune, compare before and after.

    python examples/cracks.py --output crack_output [--init MODEL] [--recipe demo] [--epochs 24] [--resume]

The surfaces are pieces of a photograph (cup and table in coffee.jpg); the cracks are drawn: branching random walks,
darker than what they run through. Without --init a small network starts from random weights.
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

SURFACE = ROOT / "tests" / "fixtures" / "photos" / "coffee.jpg"


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


def surface(random: np.random.RandomState, photo: Image.Image, side: int) -> Image.Image:
    """A piece of the photo, turned and made darker or lighter."""
    width, height = photo.size
    cut = int(random.randint(height // 3, height // 2))
    left, top = (int(random.randint(side - cut)) for side in (width, height))
    piece = photo.crop((left, top, left + cut, top + cut)).resize((side, side), Image.LANCZOS)
    light = random.uniform(0.7, 1.3)
    return piece.rotate(90 * int(random.randint(4))).point(lambda value: value * light)


def make_data(folder: Path, count: int, side: int, seed: int) -> Path:
    """Writes images/ and masks/."""
    random, photo = np.random.RandomState(seed), Image.open(SURFACE).convert("RGB")
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        mask = draw_crack(random, side)
        ground = surface(random, photo, side)
        dark = ground.point(lambda value: value * 0.35)
        depth = mask.filter(ImageFilter.GaussianBlur(0.7)).point(lambda value: value * 0.9)
        Image.composite(dark, ground, depth).save(folder / "images" / f"crack{i:03d}.png")
        mask.point(lambda value: 255 * (value > 127)).save(folder / "masks" / f"crack{i:03d}.png")
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("crack_output"))
    parser.add_argument("--init", help="checkpoint to start from; without it a small new network")
    parser.add_argument("--recipe", default="demo", help="demo, or finetune for a published checkpoint")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    try:
        data = TrainingData(
            sets=(make_data(args.output / "train", args.images, args.size, seed=0),),
            validation=(make_data(args.output / "test", max(4, args.images // 4), args.size, seed=1),),
        )
        # The rates of the demo suit small networks; a published one learns with those of "finetune".
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
