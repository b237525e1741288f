"""What ``import birefnet_core`` offers."""

import importlib
import pkgutil
import sys
from types import ModuleType

import pytest

import birefnet_core as bc

PACKAGES = ["birefnet_core", *(m.name for m in pkgutil.walk_packages(bc.__path__, "birefnet_core.") if m.ispkg)]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_hides_a_module(package):
    """``import birefnet_core.checkpoints.catalogue as c`` reads attributes, which a function of that name would be."""
    parent = importlib.import_module(package)
    for name in getattr(parent, "__all__", ()):
        getattr(parent, name)
    for module in pkgutil.iter_modules(parent.__path__, f"{package}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            assert isinstance(getattr(parent, module.name.rpartition(".")[2]), ModuleType), module.name


def test_every_public_name_exists():
    assert set(bc.__all__) <= set(dir(bc))
    assert [entry.name for entry in bc.list_checkpoints()][:2] == ["BiRefNet", "BiRefNet_HR"]
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = bc.nonsense


def test_modules_below_a_package_are_importable_by_their_full_name():
    import birefnet_core.checkpoints.catalogue as catalogue

    assert catalogue is sys.modules["birefnet_core.checkpoints.catalogue"]
