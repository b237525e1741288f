"""ONNX files compute the network's masks, in plain onnxruntime."""

import warnings

import pytest

import birefnet_core as bc
from birefnet_core.cli.main import main

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


def test_the_command_writes_and_compares(model_file, tmp_path, capsys):
    arguments = ["export", "--model", str(model_file), "--onnx", str(tmp_path / "x.onnx"), "--size", "96x64"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "masks differ from the network's by at most" in printed
    assert float(printed.rsplit(" ", 1)[1]) < 1e-3
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["swin_v1_t", "pvt_v2_b0"])
def test_the_number_of_images_may_stay_open(variant, filled, tmp_path):
    import numpy as np
    import onnxruntime
    import torch

    from birefnet_core.export import MaskNetwork, export_onnx

    model = bc.model_from_state_dict(filled(variant))
    path = export_onnx(model, tmp_path / "x.onnx", size=(256, 256), dynamic_batch=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        images = torch.rand(count, 3, 256, 256)
        (found,) = session.run(None, {"image": images.numpy()})
        with torch.no_grad():
            expected = MaskNetwork(model)(images).numpy()
        assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize(("name", "size", "words"), [("x.bin", None, "ends in"), ("x.onnx", (100, 64), "multiples")])
def test_what_does_not_fit_is_refused(name, size, words, filled, tmp_path):
    from birefnet_core.export import export_onnx

    with pytest.raises(bc.ConfigError, match=words):
        export_onnx(bc.model_from_state_dict(filled("pvt_v2_b0")), tmp_path / name, size=size)


@pytest.mark.parametrize("fused", [False, True])
def test_the_callers_network_is_left_alone(fused, filled):
    import torch

    from birefnet_core.export import MaskNetwork

    model = bc.model_from_state_dict(filled("pvt_v2_b0")).half()
    model = bc.fuse_for_inference(model) if fused else model.train()
    network = MaskNetwork(model)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    assert model.training != fused


def test_warnings_of_others_than_the_exporter_are_shown(filled, tmp_path, monkeypatch):
    import torch

    from birefnet_core.export import export_onnx

    def export(network, *args, **options):
        warnings.warn_explicit("of the exporter", UserWarning, "x.py", 1, module="torch.onnx._internal")
        warnings.warn("of somebody else", UserWarning, stacklevel=1)
        raise RuntimeError("enough")

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.warns(UserWarning) as shown, pytest.raises(RuntimeError, match="enough"):
        export_onnx(bc.model_from_state_dict(filled("pvt_v2_b0")), tmp_path / "x.onnx", size=(64, 64))
    assert [str(warning.message) for warning in shown] == ["of somebody else"]
