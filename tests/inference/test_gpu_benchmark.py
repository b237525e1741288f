"""benchmarks/gpu.py runs, and prints its tables, where there is no GPU either."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_every_section_gives_rows_without_errors(tmp_path):
    output = tmp_path / "x.json"
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--quick", "--budget-seconds", "1200"]
    command += ["--sections", "exact", "speed", "memory", "first", "train", "--output", str(output)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    result = json.loads(output.read_text())
    assert result["machine"]["device"] == "cpu"
    assert {row["section"] for row in result["rows"]} == {"exact", "speed", "memory", "first", "train"}
    assert [row for row in result["rows"] if "error" in row] == []
    for section in ("exact", "speed", "memory", "first", "train"):
        assert f"## {section}\n\n| model |" in printed
    assert all(row["max_error"] < 0.01 for row in result["rows"] if row["section"] == "speed")
