"""The listing of known checkpoints."""

import json

from birefnet_core.cli.main import main


def test_the_table_names_every_checkpoint_and_what_is_here(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "BiRefNet_lite.safetensors").write_bytes(b"x")
    assert main(["checkpoints", "--folder", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for words in ("BiRefNet_HR-matting", "2048 x 2048", "non-commercial", str(tmp_path / "BiRefNet_lite.safetensors")):
        assert words in printed


def test_json_is_for_programs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert main(["checkpoints", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["BiRefNet_lite-2K"]["training_size"] == [2560, 1440]
    assert rows["BiRefNet_lite"]["path"] is None
