"""Colours by gAMA and cICP of PNG, and nclx of AVIF, against the standards; the image is what is seen."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, features

from birefnet_core.image_colours import coding_of
from birefnet_core.image_reading import read_image_file, read_pil_image

PIXELS = np.linspace(0, 255, 64 * 48 * 3).reshape(48, 64, 3).astype(np.uint8)
LINEAR = struct.pack(">I", 100000)
NO_AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")


def write_png(path, *chunks, pixels=PIXELS, **options):
    """A PNG with chunks before its pixels."""
    Image.fromarray(pixels).save(path, **options)
    data = path.read_bytes()
    added = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    path.write_bytes(data[:33] + added + data[33:])
    return path


def srgb(light):
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def of_pq(values):
    """Light where 1 is 203 cd/m2, BT.2100."""
    y = values ** (1 / 78.84375)
    return (np.maximum(y - 0.8359375, 0) / (18.8515625 - 18.6875 * y)) ** (1 / 0.1593017578125) * 10000 / 203


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16"])
def test_linear_png_is_seen_as_it_is(tmp_path, mode):
    deep = PIXELS[..., 0].astype(np.uint16) * 257
    image = Image.fromarray(deep) if mode == "I;16" else Image.fromarray(PIXELS).convert(mode)
    before = np.asarray(image.convert("RGB") if mode != "I;16" else deep[..., None] / 257) / 255
    image.save(tmp_path / "plain.png")
    data = (tmp_path / "plain.png").read_bytes()
    chunk = b"gAMA" + LINEAR
    (tmp_path / "linear.png").write_bytes(
        data[:33] + b"\0\0\0\4" + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    )
    file = read_image_file(tmp_path / "linear.png")
    assert np.abs(file.colours.numpy() - srgb(before)).max() < 1e-3
    assert any("linear light, and became sRGB" in note for note in file.notes)
    with Image.open(tmp_path / "linear.png") as opened:
        assert torch.equal(read_pil_image(opened).colours, file.colours)


@pytest.mark.parametrize(
    ("chunks", "options"),
    [
        ([(b"gAMA", struct.pack(">I", 45455))], {}),
        ([(b"gAMA", struct.pack(">I", 50994))], {}),
        ([(b"gAMA", struct.pack(">I", 55556))], {}),
        ([(b"gAMA", struct.pack(">I", 0))], {}),
        ([(b"gAMA", LINEAR), (b"sRGB", b"\0")], {}),
        ([(b"cICP", bytes([1, 13, 0, 1])), (b"gAMA", LINEAR)], {}),
        ([(b"cICP", bytes([9, 200, 0, 1]))], {}),
        ([(b"cICP", b"\1")], {}),
    ],
)  # fmt: skip
def test_what_is_srgb_or_unknown_is_left(tmp_path, chunks, options):
    file = read_image_file(write_png(tmp_path / "a.png", *chunks, **options))
    assert np.array_equal(file.colours.numpy(), PIXELS.astype(np.float32) / 255)
    assert not file.notes


def test_a_profile_counts_more_than_gamma_and_less_than_cicp(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = write_png(tmp_path / "a.png", (b"gAMA", LINEAR), icc_profile=profile)
    assert np.array_equal(read_image_file(path).colours.numpy(), PIXELS.astype(np.float32) / 255)
    assert read_image_file(path).icc_profile == profile
    path = write_png(tmp_path / "a.png", (b"cICP", bytes([1, 8, 0, 1])), icc_profile=profile)
    file = read_image_file(path)
    assert np.abs(file.colours.numpy() - srgb(PIXELS / 255)).max() < 1e-3
    assert file.icc_profile is None


def test_hdr_and_wide_gamuts_by_cicp(tmp_path):
    grey = np.array([[[0, 0, 0], [100, 100, 100], [120, 120, 120], [148, 148, 148], [255, 255, 255]]], np.uint8)
    file = read_image_file(write_png(tmp_path / "pq.png", (b"cICP", bytes([9, 16, 0, 1])), pixels=grey))
    expected = srgb(of_pq(grey / 255))
    assert np.abs(file.colours.numpy() - expected)[0, :3].max() < 2e-3  # below the knee of the tone-mapping
    assert 0.9 < file.colours[0, 3, 0] < file.colours[0, 4, 0] <= 1  # white of SDR, and 10,000 cd/m2
    assert any("HDR (PQ)" in note for note in file.notes)
    green = np.array([[[0, 255, 0], [255, 255, 255], [180, 140, 140]]], np.uint8)
    found = read_image_file(write_png(tmp_path / "p3.png", (b"cICP", bytes([12, 13, 0, 1])), pixels=green)).colours[0]
    assert np.abs(found[:2].numpy() - [[0, 1, 0], [1, 1, 1]]).max() < 0.02
    assert found[2, 0] * 255 == pytest.approx(187, abs=1.5)  # a wider red is more of sRGB's


@NO_AVIF
@pytest.mark.parametrize(("transfer", "kind"), [(16, "HDR (PQ)"), (18, "HDR (HLG)"), (13, None)])
def test_hdr_by_nclx_of_avif(tmp_path, transfer, kind):
    path = tmp_path / "a.avif"
    Image.fromarray(PIXELS).save(path, quality=95)
    data = path.read_bytes()
    before = read_image_file(path).colours
    assert b"colrnclx\0\1\0\x0d" in data
    path.write_bytes(data.replace(b"colrnclx\0\1\0\x0d", b"colrnclx\0\1\0" + bytes([transfer])))
    file = read_image_file(path)
    assert [kind in note for note in file.notes] == ([True] if kind else [])
    assert torch.equal(file.colours, before) == (kind is None)


@NO_AVIF
def test_damaged_descriptions_are_passed_over(tmp_path):
    path = tmp_path / "a.avif"
    Image.fromarray(PIXELS).save(path)
    data = bytearray(path.read_bytes())
    for place in range(32, 270):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        (tmp_path / "b.avif").write_bytes(damaged)
        image = Image.new("RGB", (1, 1))
        image.format, image.filename = "AVIF", str(tmp_path / "b.avif")
        coding_of(image)


@pytest.mark.parametrize(("gamma", "far"), [(1.0, True), (1.8, False)])
def test_a_profile_of_linear_light_becomes_srgb(tmp_path, gamma, far):
    """Profiles whose greys are about those of sRGB stay, with the numbers."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    at = profile.index(b"para\0\0\0\0\0\3\0\0") + 12  # the curve of all three colours: (a x + b) ** gamma above d
    profile = profile[:at] + struct.pack(">5i", *(round(n * 65536) for n in (gamma, 1, 0, 1, 0))) + profile[at + 20 :]
    image = Image.fromarray(PIXELS)
    image.putalpha(200)
    image.save(tmp_path / "a.png", icc_profile=profile)
    file = read_image_file(tmp_path / "a.png")
    assert np.abs(file.colours.numpy() - (srgb(PIXELS / 255) if far else PIXELS / 255)).max() < 3e-3
    assert file.icc_profile == (None if far else profile)
    assert file.alpha.unique() * 255 == pytest.approx(200)
