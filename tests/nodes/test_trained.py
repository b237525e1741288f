"""A network that train/finetune.py made, in the nodes."""

import shutil
from pathlib import Path

import torch

from birefnet_core.cli.main import main
from tests.training.conftest import write_shapes


def test_a_trained_file_loads_and_segments_as_in_the_core(comfy, tmp_path):
    shapes, out = write_shapes(tmp_path / "shapes", 4), tmp_path / "out"
    flags = ["--data", str(shapes), "--out", str(out), "--backbone", "pvt_v2_b0", "--epochs", "1", "--size", "64"]
    with torch.inference_mode(False):
        assert main(["train", *flags, "--workers", "0", "--device", "cpu", "--quiet"]) == 0
    folder = Path(comfy.folders.models_dir, "birefnet")
    folder.mkdir(exist_ok=True)
    shutil.copy(out / "best.safetensors", folder / "my_shapes.safetensors")

    load, segment = (
        next(n for n in comfy.nodes.NODES if n.__name__ == name) for name in ("BiRefNetLoadModel", "BiRefNetSegment")
    )
    model = load.execute("my_shapes.safetensors", dtype="auto", device="auto", patch_order="auto").result[0]
    images = torch.rand(2, 50, 70, 3, generator=torch.Generator().manual_seed(0))
    size = {"size": "auto (training size)", "width": 64, "height": 96}
    masks = segment.execute(model, images, **size).result[0]
    expected = comfy.core.Segmenter(comfy.core.load_model(out / "best.safetensors"))(images)
    assert model.model.checkpoint.training_size == (64, 64)
    torch.testing.assert_close(masks, expected, rtol=0, atol=1e-5)
