"""The order of the house: docs/architecture.md, checked."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "birefnet_core"
MOST_LINES = 400
MODULES = sorted(CORE.rglob("*.py"))
NEUTRAL = {"checkpoint_info", "config", "errors", "files", "image_ops", "text"}  # for every part of the core
MAY_IMPORT = {
    "ops": set(),
    "network": {"ops"},
    "masks": set(),
    "losses": set(),
    "metrics": set(),
    "checkpoints": {"network", "devices"},
    "inference": {"network", "masks", "ops"},
    "training": {"network", "checkpoints", "inference", "losses", "metrics", "masks", "devices", "images"},
}


def imported(path: Path) -> set[str]:
    """Parts of the core that a module imports when it runs, wherever in the module."""
    parts, depth = set(), len(path.relative_to(CORE).parts)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == depth and id(node) not in typing_only:
            parts |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return parts


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(CORE).as_posix())
def test_core_imports_only_what_its_place_may(path):
    room = path.relative_to(CORE).parts[0]
    if room in MAY_IMPORT:
        assert imported(path) <= MAY_IMPORT[room] | NEUTRAL
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
        assert not [name for name in names if name.split(".")[0] in ("comfy", "comfy_api", "folder_paths", "nodes")]


def test_node_classes_leave_comfyui_to_shared_modules():
    for path in (ROOT / "nodes").glob("*.py"):
        if path.name not in ("comfy_compat.py", "model_folders.py", "model_handle.py", "tensors.py"):
            text = path.read_text(encoding="utf-8")
            assert "import comfy" not in text and "from comfy" not in text and "folder_paths" not in text, path.name


def test_files_stay_short():
    folders = ("birefnet_core", "nodes", "train", "examples", "benchmarks", "tests")
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_the_house_and_its_plan_have_the_same_rooms():
    plan = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for folder in CORE.iterdir():
        if folder.is_dir() and any(folder.iterdir()) and folder.name != "__pycache__":
            assert f"`birefnet_core/{folder.name}/`" in plan, folder.name
    for module in (*CORE.glob("*.py"), *(ROOT / "train").glob("*.py")):
        if not module.name.startswith(("__", "cli")):
            assert module.name in plan, module.name
