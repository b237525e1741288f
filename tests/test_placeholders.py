"""What lies in the place of a file is named by every reader."""

import pytest

import birefnet_core as bc
from birefnet_core.image_reading import read_image_file
from birefnet_core.mask_files import read_mask
from birefnet_core.training.data.reading import read_cutout

PLACEHOLDERS = {
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
    "web page": b"\xef\xbb\xbf\n <!DOCTYPE html><html><body>Not found</body></html>",
    "zeros": bytes(5000),
}


def load_checkpoint(path):
    return bc.load_model(path)


def open_clip(path):
    pytest.importorskip("av")
    from birefnet_core.video import Clip

    return Clip(path)


@pytest.mark.parametrize("kind", PLACEHOLDERS)
@pytest.mark.parametrize(
    ("read", "name"),
    [
        (load_checkpoint, "a.safetensors"),
        (load_checkpoint, "a.pth"),
        (read_image_file, "a.png"),
        (read_mask, "a.png"),
        (read_cutout, "a.png"),
        (open_clip, "a.mp4"),
    ],
)
def test_placeholders_are_named(tmp_path, kind, read, name):
    (tmp_path / name).write_bytes(PLACEHOLDERS[kind])
    with pytest.raises(bc.BiRefNetError, match=rf"a\..*{kind}"):
        read(tmp_path / name)
