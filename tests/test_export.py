"""ONNX files compute the network's masks, in plain onnxruntime."""

import errno
import os
import shutil
import warnings
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch.torch_version import TorchVersion

import birefnet_core as bc
from birefnet_core.cli.main import main
from birefnet_core.export import MaskNetwork, export_onnx
from birefnet_core.network.deformable_conv import DeformableConv2d

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

exports = pytest.mark.skipif(torch.__version__ < "2.7", reason="needs the exporter of torch 2.7")

SMALL = {"image_pyramid": "none", "context_fusion": 0, "inward_reference": False, "outward_reference": False}


@exports
@pytest.mark.parametrize(
    ("backbone", "block", "options"),
    [
        ("resnet10", "residual", SMALL),
        pytest.param("pvt_v2_b0", "residual", SMALL, marks=pytest.mark.slow),
        pytest.param("pvt_v2_b0", "residual", {}, marks=pytest.mark.slow),
        pytest.param("pvt_v2_b0", "deformable_aspp", {}, marks=pytest.mark.slow),  # twenty times as long
    ],
)
def test_the_command_writes_and_compares(backbone, block, options, tmp_path, capsys):
    torch.manual_seed(0)
    config = bc.BiRefNetConfig(backbone=backbone, reconstruction_block=block, **options)
    model = bc.BiRefNet(config).eval()
    model_file = bc.save_checkpoint(model, tmp_path / "x.safetensors", training_size=(64, 64))
    arguments = ["export", "--model", str(model_file), "--onnx", str(tmp_path / "x.onnx"), "--size", "96x64"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "masks differ from the network's by at most" in printed
    assert float(printed.rsplit(" ", 1)[1]) < 1e-3
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err


@exports
def test_a_deformable_convolution_is_written_as_it_computes(tmp_path):
    convolution = DeformableConv2d(8, 6, 3).eval()
    for parameter in convolution.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, 8, 12, 9)
    torch.onnx.export(convolution, (x,), dynamo=True, verbose=False, input_names=["x"]).save(tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), convolution(x).detach(), rtol=1e-4, atol=1e-4)


@exports
@pytest.mark.slow
@pytest.mark.parametrize("variant", ["swin_v1_t", "pvt_v2_b0"])
def test_the_number_of_images_may_stay_open(variant, filled, tmp_path):
    model = bc.model_from_state_dict(filled(variant))
    path = export_onnx(model, tmp_path / "x.onnx", size=(256, 256), dynamic_batch=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        images = torch.rand(count, 3, 256, 256)
        (found,) = session.run(None, {"image": images.numpy()})
        with torch.no_grad():
            expected = MaskNetwork(model)(images).numpy()
        assert np.abs(found - expected).max() < 1e-3


def test_torch_without_the_exporter_is_told(filled, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.6.0+cu124"))
    with pytest.raises(bc.ConfigError, match=r"needs torch 2\.7 or newer; found torch 2\.6\.0"):
        export_onnx(bc.model_from_state_dict(filled("smallest")), tmp_path / "x.onnx", size=(64, 64))


@exports
@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("x.bin", None, "ends in"),
        ("x.onnx", (100, 64), "multiples"),
        ("x.onnx", (10**9 + 24, 64), " to 16384"),
        ("x.onnx", (64, 2**63 * 32), " to 16384"),
    ],
)
def test_what_does_not_fit_is_refused(name, size, words, filled, tmp_path):
    with pytest.raises(bc.ConfigError, match=words):
        export_onnx(bc.model_from_state_dict(filled("smallest")), tmp_path / name, size=size)


@exports
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 64}, r"size=64: expected \(width, height\)"),
        ({"size": (64.0, 64)}, r"size=\(64\.0, 64\): expected \(width, height\)"),
        ({"size": "64x64"}, "size='64x64': expected"),
        ({"dynamic_batch": "false"}, "dynamic_batch is 'false', expected True or False"),
        ({"overwrite": "false"}, "overwrite is 'false', expected True or False"),
    ],
)
def test_options_of_another_kind_are_told(options, words, filled, tmp_path):
    model = bc.model_from_state_dict(filled("smallest"))
    with pytest.raises(bc.ConfigError, match=words):
        export_onnx(model, tmp_path / "a.onnx", **options)
    with pytest.raises(bc.ConfigError, match="expected a BiRefNet"):
        export_onnx("demo", tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_too_little_memory_is_told(filled, tmp_path, monkeypatch):
    def allocate(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3221225472 bytes.")

    monkeypatch.setattr(torch, "rand", allocate)
    with pytest.raises(bc.MemoryLimitError, match=r"too little memory to export at 16384 x 64 pixels.* a smaller size"):
        export_onnx(bc.model_from_state_dict(filled("smallest")), tmp_path / "x.onnx", size=(16384, 64))
    assert not list(tmp_path.iterdir())


def _fifo(path):
    os.mkfifo(path)


PLACES = {
    "a folder": ("x.onnx", lambda path: path.mkdir(), "is a folder, expected the name of a file"),
    "a pipe": ("x.onnx", _fifo, "is a pipe or a device, expected the name of a file"),
    "a link to a device": ("x.onnx", lambda path: path.symlink_to(os.devnull), "is a pipe or a device"),
    "a file as folder": ("a/x.onnx", lambda path: path.parent.write_text("a"), "is a file|File exists"),
    "a folder that cannot be": ("\ud7ff" * 100 + "/x.onnx", None, "cannot be created|not written"),
    "a name that cannot be": ("y" * 300 + ".onnx", None, "cannot be written|not written"),
}


@exports
@pytest.mark.skipif(os.name == "nt", reason="has no such pipes and devices")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("of_the_command", [True, False])
def test_a_place_that_cannot_be_written_is_told_before_any_work(
    of_the_command, place, filled, tmp_path, monkeypatch, capsys
):
    name, make, words = PLACES[place]
    path = tmp_path / name
    if make is not None:
        make(path)
    monkeypatch.setattr("birefnet_core.cli.export.load_model", lambda _: pytest.fail("loaded"))
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("exported"))
    before = sorted(tmp_path.rglob("*"))
    if of_the_command:
        assert main(["export", "--model", "demo", "--onnx", str(path), "--overwrite"]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
    else:
        with pytest.raises(bc.CheckpointError) as error:
            export_onnx(bc.model_from_state_dict(filled("smallest")), path, size=(64, 64))
        told = str(error.value)
    assert [word for word in words.split("|") if word in told]
    assert sorted(tmp_path.rglob("*")) == before


@exports
@pytest.mark.parametrize("reason", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_in_which_no_file_can_be_made_is_told_before_exporting(reason, filled, tmp_path, monkeypatch):
    def refuse(path):
        raise OSError(reason, os.strerror(reason), str(path))

    monkeypatch.setattr("birefnet_core.files._create_part", refuse)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("exported"))
    with pytest.raises(bc.CheckpointError, match=os.strerror(reason)):
        export_onnx(bc.model_from_state_dict(filled("smallest")), tmp_path / "a" / "x.onnx", size=(64, 64))


@exports
@pytest.mark.parametrize(("total", "told"), [(10**9, True), (0, False)])
def test_a_disk_that_is_too_full_is_told_before_exporting(total, told, filled, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(total, total, 0))

    def export(*_, **__):
        raise RuntimeError("exporting")

    monkeypatch.setattr(torch.onnx, "export", export)
    expected, words = (bc.CheckpointError, r"MB needed, 0 MB free") if told else (RuntimeError, "exporting")
    with pytest.raises(expected, match=words):
        export_onnx(bc.model_from_state_dict(filled("smallest")), tmp_path / "x.onnx", size=(64, 64))
    assert not list(tmp_path.iterdir())


@exports
def test_the_commands_other_refusals_come_before_the_network_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("birefnet_core.cli.export.load_model", lambda _: pytest.fail("loaded"))
    (tmp_path / "x.onnx").write_text("x")
    for name, words in (("x.bin", "ends in .onnx"), ("x.onnx", "is already there")):
        assert main(["export", "--model", "demo", "--onnx", str(tmp_path / name)]) == 2
        assert words in capsys.readouterr().err


@exports
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_appears_while_exporting_is_replaced_only_with_overwrite(overwrite, filled, tmp_path, monkeypatch):
    class Program:
        def save(self, part):
            (tmp_path / "x.onnx").write_text("theirs")
            with open(part, "w") as file:
                file.write("ours")

    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program())
    model = bc.model_from_state_dict(filled("smallest"))
    if overwrite:
        export_onnx(model, tmp_path / "x.onnx", size=(64, 64))
    else:
        with pytest.raises(bc.CheckpointError, match="another program has written it meanwhile"):
            export_onnx(model, tmp_path / "x.onnx", size=(64, 64), overwrite=False)
    assert (tmp_path / "x.onnx").read_text() == ("ours" if overwrite else "theirs")


@exports
def test_a_network_that_is_too_large_for_one_file_is_refused(filled, tmp_path, monkeypatch):
    monkeypatch.setattr("birefnet_core.export.LARGEST", 10**6)
    with pytest.raises(bc.ConfigError, match="GB of weights"):
        export_onnx(bc.model_from_state_dict(filled("smallest")), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fused", [False, True])
def test_the_callers_network_is_left_alone(fused, filled):
    model = bc.model_from_state_dict(filled("smallest")).half()
    model = bc.fuse_for_inference(model) if fused else model.train()
    network = MaskNetwork(model)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    assert model.training != fused


def test_warnings_of_others_than_the_exporter_are_shown(filled, tmp_path, monkeypatch):
    def export(network, *args, **options):
        warnings.warn_explicit("of the exporter", UserWarning, "x.py", 1, module="torch.onnx._internal")
        warnings.warn("of somebody else", UserWarning, stacklevel=1)
        raise RuntimeError("enough")

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.warns(UserWarning) as shown, pytest.raises(RuntimeError, match="enough"):
        export_onnx(bc.model_from_state_dict(filled("smallest")), tmp_path / "x.onnx", size=(64, 64))
    assert [str(warning.message) for warning in shown] == ["of somebody else"]
