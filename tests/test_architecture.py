"""docs/architecture.md, checked: who imports whom, no circles, no function in a module's place, short files."""

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import birefnet_core

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "birefnet_core"
MOST_LINES = 400

# What each package of the core may import besides itself and the modules beside the packages (config, errors, ...).
MAY_IMPORT = {
    "ops": set(),
    "network": {"ops"},
    "masks": set(),
    "losses": set(),
    "metrics": set(),
    "checkpoints": {"network", "ops"},
    "inference": {"network", "ops", "masks"},
    "export": {"network", "ops", "inference"},
    "video": {"network", "ops", "masks", "checkpoints", "inference"},
    "training": {"network", "ops", "masks", "losses", "metrics", "checkpoints", "inference"},
    "cli": {"network", "ops", "masks", "losses", "metrics", "checkpoints", "inference", "export", "video", "training"},
}
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "nodes", "server"}
# The only files of nodes/ that import ComfyUI.
COMFYUI_ADAPTERS = {
    "comfy_compat.py", "example_inputs.py", "model_folders.py", "model_handle.py", "tensors.py", "video_files.py",
}  # fmt: skip


def module_name(path: Path) -> str:
    """birefnet_core/network/swin.py -> network.swin; a package's __init__.py -> the package."""
    parts = path.relative_to(CORE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(path): path for path in sorted(CORE.rglob("*.py"))}
NEUTRAL = {name for name in PATHS if name and "." not in name and not PATHS[name].name.startswith("__")} - set(
    MAY_IMPORT
)


def imported_modules(path: Path) -> set[str]:
    """Modules of the core that a module imports: anywhere in it, and for its annotations alone, too."""
    package = path.relative_to(CORE).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) + 1 - node.level], *(node.module or "").split(".")]
            base = [part for part in base if part]
            for alias in node.names:
                submodule = ".".join([*base, alias.name])
                found.add(submodule if submodule in PATHS else ".".join(base))
    return found


def absolute_imports(path: Path) -> set[str]:
    """First names of all absolute imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


IMPORTS = {name: imported_modules(path) for name, path in PATHS.items()}


@pytest.mark.parametrize("name", [name for name in PATHS if name not in ("", "__main__")])
def test_modules_import_only_what_their_layer_may(name):
    place = name.split(".")[0]
    allowed = NEUTRAL | MAY_IMPORT.get(place, set()) | {place}
    assert {module.split(".")[0] for module in IMPORTS[name]} <= allowed
    assert not absolute_imports(PATHS[name]) & {"birefnet_core", *COMFYUI}


def test_imports_have_no_circles():
    """Peels off modules that import none of those left; what stays is in a circle, or imports one."""
    left = {name: imports - {name} for name, imports in IMPORTS.items()}
    while free := {name for name, imports in left.items() if not imports & left.keys()}:
        left = {name: imports for name, imports in left.items() if name not in free}
    assert {name: sorted(imports & left.keys()) for name, imports in left.items()} == {}


def packages() -> list[str]:
    found = pkgutil.walk_packages(birefnet_core.__path__, "birefnet_core.")
    return ["birefnet_core", *(module.name for module in found if module.ispkg)]


@pytest.mark.parametrize("name", packages())
def test_every_module_is_reached_by_its_name(name):
    """No function or class hides a module: ``import package.module as m`` gives the module."""
    package = importlib.import_module(name)
    for module in pkgutil.iter_modules(package.__path__):
        if module.name != "__main__":
            importlib.import_module(f"{name}.{module.name}")
            assert isinstance(getattr(package, module.name), ModuleType), f"{name}.{module.name}"
            assert module.name not in getattr(package, "__all__", ()), f"{name}.{module.name}"


@pytest.mark.parametrize("path", sorted((ROOT / "nodes").glob("*.py")), ids=lambda path: path.name)
def test_only_the_adapters_of_the_nodes_import_comfyui(path):
    if path.name not in COMFYUI_ADAPTERS:
        assert not absolute_imports(path) & COMFYUI


def test_files_stay_short():
    folders = ("birefnet_core", "nodes", "train", "tools", "examples", "benchmarks", "tests")
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}
