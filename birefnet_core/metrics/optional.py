"""Packages only some metrics need, imported when they are used and named clearly when they are missing."""

from __future__ import annotations

from types import ModuleType

from ..errors import ConfigError


def ndimage(what: str) -> ModuleType:
    """``scipy.ndimage``, for ``what``.

    Raises:
        ConfigError: SciPy is not installed.
    """
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ConfigError(f"{what} needs SciPy, which is not installed: pip install scipy") from error
    return ndimage


def opencv(what: str) -> ModuleType:
    """``cv2``, for ``what``.

    Raises:
        ConfigError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise ConfigError(
            f"{what} needs OpenCV, which is not installed: pip install -r requirements-eval.txt"
        ) from error
    return cv2


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
    try:
        from matplotlib import figure
    except ImportError as error:
        raise ConfigError(
            f"{what} needs matplotlib, which is not installed: pip install -r requirements-eval.txt"
        ) from error
    return figure
