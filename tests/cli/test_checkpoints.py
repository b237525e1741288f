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


def test_a_folder_that_is_not_there_is_noted(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert main(["checkpoints", "--folder", str(tmp_path), "--json", "--folder", str(tmp_path / "file")]) == 0
    printed = capsys.readouterr()
    assert printed.err == f"note: --folder {tmp_path / 'file'}: no such folder, so nothing was looked for in it\n"
    assert json.loads(printed.out)


def test_json_is_for_programs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert main(["checkpoints", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["BiRefNet_lite-2K"]["training_size"] == [2560, 1440]
    assert rows["BiRefNet_lite"]["path"] is None
