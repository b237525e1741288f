"""docs/paper_map.md names files and classes that are there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "birefnet_core"
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in (ROOT / "docs" / "paper_map.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| paper")
]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def names_in(path: Path) -> set[str]:
    """Functions, classes and constants of a module, and the fields and attributes of its classes as "Class.field"."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ClassDef):
            fields = {field.target.id for field in node.body if isinstance(field, ast.AnnAssign)}
            own = (n for n in ast.walk(node) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name))
            names |= {f"{node.name}.{name}" for name in fields | {n.attr for n in own if n.value.id == "self"}}
    return names


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[1]}")
def test_files_and_names_of_a_row_exist(row):
    files = [(CORE / name).resolve() for name in quoted(row[2])]
    names = quoted(row[3])
    assert files and names
    assert all(path.is_file() for path in files)
    there = set.union(*map(names_in, files))
    assert set(names) <= there, f"not in {row[2]}: {set(names) - there}"


def test_every_equation_is_on_the_map():
    text = " ".join(row[0] for row in ROWS)
    assert set(re.findall(r"Eq\. (\d)", text)) == set("23456789")  # Eq. 1 has no number of its own in the paper's text
