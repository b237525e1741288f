"""The figures of the paper's Tables 4 to 6, to print beside measured ones (``published.json``)."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib import resources
from typing import Any

TASKS = ("DIS", "HRSOD", "COD")
DIS_TESTS, DIS_MEAN = ("DIS-TE1", "DIS-TE2", "DIS-TE3", "DIS-TE4"), "DIS-TE(1-4)"  # the paper's grouping, Tab. 4


def paper_name(set_name: str) -> str | None:
    """The paper's name of a set (``DIS5K_TE1``, ``TE-HRSOD`` and the like are understood), or None."""
    names = {_bare(name): name for task in TASKS for name in _tables()[task]["sets"]}
    return names.get(_bare(set_name)) or names.get("DIS" + _bare(set_name))


def task_of(set_name: str) -> str | None:
    """The task whose table has a set: DIS, HRSOD, COD or None."""
    name = paper_name(set_name)
    return next((task for task in TASKS if name in _tables()[task]["sets"]), None)


def paper_columns(task: str) -> tuple[str, ...]:
    """The keys of a task's table in the order of its columns."""
    return tuple(_tables()[task]["keys"])


def paper_rows(set_name: str, *, ours_only: bool = True) -> dict[str, dict[str, float]]:
    """What the paper gives for a set: scores by method.

    Args:
        ours_only: Only the rows of BiRefNet, not those of the methods it is compared with.
    """
    task = task_of(set_name)
    if task is None:
        return {}
    return {
        method: dict(zip(paper_columns(task), sets[paper_name(set_name)], strict=True))
        for method, sets in _tables()[task]["methods"].items()
        if paper_name(set_name) in sets and (method.startswith("BiRefNet") or not ours_only)
    }


def _bare(set_name: str) -> str:
    """A set's name without what data sets' folders vary: case, separators, a lone TE, DIS5K for DIS."""
    parts = [part for part in re.split(r"[^A-Z0-9]+", set_name.upper()) if part and part != "TE"]
    return "".join("DIS" if part == "DIS5K" else part for part in parts)


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    return json.loads(resources.files(__package__).joinpath("published.json").read_text("utf-8"))
