"""Draws cases, has them checked, and writes those that fail."""

from __future__ import annotations

import dataclasses
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from . import sources
from .mutations import Mutation, apply, draw
from .reduce import fewer_bytes, fewer_mutations
from .sources import Source
from .worker import Failure, Worker

_MOST_MUTATIONS = (1, 1, 1, 2, 2, 3, 5, 12)
_SECONDS_BETWEEN_LINES = 15.0
_REDUCE_SECONDS = 60.0

# Name -> the check, and what makes the sound files.
PARTS: dict[str, tuple[str, Callable[[], list[Source]]]] = {
    "checkpoints": ("checkpoint", sources.checkpoints),
    "adapters": ("adapter", sources.adapter_files),
    "training": ("training", sources.training_states),
    "images": ("image", sources.images),
    "masks": ("mask", sources.masks),
    "recipes": ("recipe", sources.recipes),
    "commands": ("command", sources.commands),
    "videos": ("video", sources.videos),
    "sequences": ("sequence", sources.sequences),
}


@dataclasses.dataclass
class Report:
    """What came of the cases.

    Attributes:
        outcomes: Part -> how often each outcome.
        failures: Folders of the cases that failed, one for each kind, with how often.
    """

    outcomes: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    failures: dict[Path, int] = dataclasses.field(default_factory=dict)

    def text(self) -> str:
        """A line for each part, and one for each failure."""
        lines = []
        for part, counts in self.outcomes.items():
            listed = ", ".join(f"{count} {name}" for name, count in counts.most_common())
            lines.append(f"{part}: {sum(counts.values())} cases ({listed})")
        lines += [f"FAILED {count} times: {folder}" for folder, count in self.failures.items()]
        return "\n".join(lines) or "no cases"


@dataclasses.dataclass(frozen=True)
class Case:
    """A damaged file.

    Attributes:
        part: Of ``PARTS``.
        source: The sound file.
        mutations: What is done to it.
    """

    part: str
    source: Source
    mutations: tuple[Mutation, ...]

    @property
    def suffix(self) -> str:
        return self.source[0]

    @property
    def check(self) -> str:
        return PARTS[self.part][0]

    def content(self) -> bytes:
        """The file with its damage."""
        return apply(self.source[1], self.mutations, self.suffix)


def draw_case(seed: int, part: str, number: int, files: Sequence[Source]) -> Case:
    """The case of a number: the same whenever it is drawn.

    Args:
        seed: Of the run.
        part: Of ``PARTS``.
        number: Of the case in its part.
        files: The part's sound files.
    """
    rng = random.Random(f"{seed}/{part}/{number}")
    suffix, content = rng.choice(files)
    mutations: list[Mutation] = []
    damaged = content
    for _ in range(rng.choice(_MOST_MUTATIONS)):
        mutations.append(draw(rng, damaged, suffix))
        damaged = apply(damaged, mutations[-1:], suffix)
    return Case(part, (suffix, content), tuple(mutations))


def fuzz(seed: int, seconds: float, parts: Sequence[str], output: Path, *, most: int | None = None) -> Report:
    """Checks cases of all parts in turn until the time is over.

    Args:
        seed: Decides all cases.
        seconds: How long.
        parts: Names of ``PARTS``.
        output: Folder for what fails.
        most: Cases of a part at most; None for no limit.
    """
    torch.set_num_threads(1)  # the checks run in copies of this process, which must have no threads
    files = {part: PARTS[part][1]() for part in parts}
    files = {part: made for part, made in files.items() if made}  # no videos without PyAV
    report = Report({part: Counter() for part in files})
    kinds: dict[str, Path] = {}
    end = time.monotonic() + seconds
    said = time.monotonic()
    number = 0
    with Worker() as worker:
        while time.monotonic() < end and (most is None or number < most):
            for part in files:
                case = draw_case(seed, part, number, files[part])
                outcome = worker.run(case.check, case.content(), case.suffix)
                report.outcomes[part]["FAILED" if isinstance(outcome, Failure) else outcome] += 1
                if isinstance(outcome, Failure):
                    kind = f"{part}: {outcome.kind}"
                    if kind not in kinds:
                        kinds[kind] = write_failure(case, outcome, output, f"seed {seed}, number {number}", worker)
                        print(f"FAILED {kind}: {kinds[kind]}", flush=True)
                    report.failures[kinds[kind]] = report.failures.get(kinds[kind], 0) + 1
            number += 1
            if time.monotonic() - said > _SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                print(f"{number} cases of each part, {len(kinds)} kinds of failure", flush=True)
    return report


def write_failure(case: Case, failure: Failure, output: Path, origin: str, worker: Worker) -> Path:
    """Reduces a case that failed and writes it, with a program that shows the failure.

    Args:
        case: The case.
        failure: What was wrong.
        output: Where its folder goes.
        origin: Seed and number, for the program's docstring.
        worker: Checks the smaller cases.
    """

    def fails(content: bytes) -> bool:
        outcome = worker.run(case.check, content, case.suffix)
        return isinstance(outcome, Failure) and outcome.kind == failure.kind

    mutations = list(case.mutations)
    content = case.content()
    if fails(content):  # else it depends on what was before, and stays as it is
        mutations = fewer_mutations(case.source[1], mutations, case.suffix, fails)
        content = fewer_bytes(apply(case.source[1], mutations, case.suffix), fails, _REDUCE_SECONDS)
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", f"{case.part}-{failure.kind}")[:100].strip("-")
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"case{case.suffix}").write_bytes(content)
    program = _PROGRAM.format(
        kind=_plain(failure.kind), origin=origin, mutations=_plain(repr(mutations)), text=_plain(failure.text),
        root=str(Path(__file__).resolve().parents[2]), check=case.check, suffix=case.suffix,
    )  # fmt: skip
    (folder / "reproduce.py").write_text(program, encoding="utf-8", errors="backslashreplace")
    return folder


def _plain(text: str) -> str:
    return text[:6000].replace("\\", "\\\\").replace('"""', "'''")


_PROGRAM = '''"""{kind}

From {origin}; what is left of the mutations: {mutations}

{text}
"""

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, {root!r})

from tools.fuzz import checks

folder = Path(tempfile.mkdtemp())
try:
    path = shutil.copy(Path(__file__).with_name("case{suffix}"), folder)
    print("no failure:", checks.run("{check}", Path(path)))
finally:
    shutil.rmtree(folder, ignore_errors=True)
'''
