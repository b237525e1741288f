"""The table of checkpoints in docs/checkpoints.md says what the catalogue says."""

import re
from pathlib import Path

import birefnet_core as bc

PAGE = Path(__file__).resolve().parents[2] / "docs" / "checkpoints.md"
ENCODERS = {"swin_v1_l": "Swin-L", "swin_v1_t": "Swin-T", "efficientnet_lite0": "EfficientNet-Lite0"}


def file_of(entry) -> str:
    if entry.repo is None:
        return "in the pack"
    return f"{entry.size_bytes / 1e6:.0f} MB, {entry.dtype}" if entry.size_bytes else "not stated"


def test_table_of_checkpoints_is_the_catalogue():
    rows = [re.split(r"\s*\|\s*", line.strip("| \n")) for line in PAGE.read_text(encoding="utf-8").splitlines()]
    found = [(row[0].strip("`"), *row[1:4], row[4].strip("*")) for row in rows if len(row) >= 5 and row[0][0] == "`"]
    expected = [
        (
            entry.name,
            "any" if entry.any_size else "{} x {}".format(*entry.training_size),
            ENCODERS[entry.backbone],
            file_of(entry),
            entry.licence,
        )
        for entry in bc.list_checkpoints()
    ]
    assert found == expected
