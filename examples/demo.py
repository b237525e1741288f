"""A photograph through the whole pipeline: load a model, segment, write the mask and a cut-out.

    python examples/demo.py --output demo_output [--model BiRefNet_lite]
"""

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from a checkout, without installing

import torch  # noqa: E402

import birefnet_core as bc  # noqa: E402
from birefnet_core.images import read_image, write_image, write_mask  # noqa: E402

UNTRAINED = """\
NOTE: no trained weights are shipped with this version, so this run uses a small network with random
weights. Everything runs as with a real checkpoint (reading, preprocessing, network, mask, cut-out), but the mask
itself means nothing. For a real mask: make demo MODEL=BiRefNet_lite (downloads about 180 MB from the
Hugging Face Hub, or takes a local file)."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, default=ROOT / "examples" / "cat.jpg")
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    parser.add_argument("--model", help="catalogue name, hub repo id or file of trained weights")
    args = parser.parse_args()
    try:
        if args.model:
            model, size = bc.load_model(args.model), None
        else:
            print(UNTRAINED)
            torch.manual_seed(0)
            model, size = bc.BiRefNet(bc.BiRefNetConfig(backbone="pvt_v2_b0")).eval(), 512
        image = read_image(args.image).unsqueeze(0)  # 1 H W 3
        start = time.perf_counter()
        mask = bc.Segmenter(model)(image, size)  # 1 H W
        seconds = time.perf_counter() - start
        colours = bc.estimate_foreground(image, mask)  # 1 H W 3
    except bc.BiRefNetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    stem = args.image.stem
    write_mask(args.output / f"{stem}_mask.png", mask[0])
    write_image(args.output / f"{stem}_cutout.png", torch.cat([colours, mask[..., None]], dim=-1)[0])
    print(f"{args.image.name}: {image.shape[2]} x {image.shape[1]} pixels, segmented in {seconds:.1f} s")
    print(f"wrote {args.output}/{stem}_mask.png and {args.output}/{stem}_cutout.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
