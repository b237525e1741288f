"""Packages only some metrics need, imported when they are used and named clearly when they are missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ..errors import ConfigError

OPENCV = "opencv-python-headless"  # the package; `pip install "birefnet[eval]"` brings all of them


def ndimage(what: str) -> ModuleType:
    """``scipy.ndimage``, for ``what``.

    Raises:
        ConfigError: SciPy is not installed.
    """
    return _import("scipy.ndimage", f"{what} needs SciPy", "scipy")


def opencv(what: str) -> ModuleType:
    """``cv2``, for ``what``.

    Raises:
        ConfigError: OpenCV is not installed.
    """
    return _import("cv2", f"{what} needs OpenCV", OPENCV)


def opencv_if_installed() -> ModuleType | None:
    """``cv2``, or None."""
    try:
        return opencv("")
    except ConfigError:
        return None


def matplotlib_figure(what: str) -> ModuleType:
    """``matplotlib.figure``, for ``what``. Figures made from it need no display and no global state.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    return _import("matplotlib.figure", f"{what} needs matplotlib", "matplotlib")


def _import(module: str, need: str, package: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"{need}, which is not installed: pip install {package}") from error
