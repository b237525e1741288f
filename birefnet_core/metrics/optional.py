"""Packages only some metrics need, imported when they are used and named clearly when they are missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ..errors import ConfigError

_EVALUATION = "pip install -r requirements-eval.txt"


def ndimage(what: str) -> ModuleType:
    """``scipy.ndimage``, for ``what``.

    Raises:
        ConfigError: SciPy is not installed.
    """
    return _import("scipy.ndimage", f"{what} needs SciPy", "pip install scipy")


def opencv(what: str) -> ModuleType:
    """``cv2``, for ``what``.

    Raises:
        ConfigError: OpenCV is not installed.
    """
    return _import("cv2", f"{what} needs OpenCV", _EVALUATION)


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
    return _import("matplotlib.figure", f"{what} needs matplotlib", _EVALUATION)


def _import(module: str, need: str, remedy: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"{need}, which is not installed: {remedy}") from error
