"""What the documents point at is there: files, images, headings, scripts, commands and their flags."""

import re
from functools import cache
from pathlib import Path

import pytest

from birefnet_core.cli.main import COMMANDS, build_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "web/docs/*.md", "tests/fixtures/**/*.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SCRIPT = r"(?:train|tools|examples|benchmarks)/[\w/]+\.py"
COMMAND = re.compile(
    rf"(?:(?:python|torchrun)[^\n`]*?({SCRIPT}|-m birefnet_core \w+)|"
    rf"(?:^|`)(birefnet (?:{'|'.join(COMMANDS)})\b))([^\n`#]*)",
    re.MULTILINE,
)
PLACE = re.compile(r"`((?:[\w.]+/)+|[\w./]+\.(?:py|toml|txt))`")  # a file or a folder in backticks


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def anchors(path: Path) -> set[str]:
    """Headings as the web shows them: lower case, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", text_of(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    lost = []
    for link in LINK.findall(text_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert not lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_there_and_know_their_flags(page):
    for script, command, rest in COMMAND.findall(text_of(page)):
        unknown = set(re.findall(r"(?<!\S)--[a-z][\w-]*", rest)) - flags(script or command)
        assert not unknown, f"{script or command} does not know {unknown}"


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_places_that_are_named_are_there(page):
    roots = (ROOT, ROOT / "birefnet_core", ROOT / "birefnet_core" / "checkpoints")
    named = set(PLACE.findall(text_of(ROOT / page)))
    assert named
    assert not {place for place in named if not any((root / place).exists() for root in roots)}


def test_every_image_is_shown_somewhere():
    shown = {(page.parent / link).resolve() for page in PAGES for link in LINK.findall(text_of(page))}
    images = {path.resolve() for path in (ROOT / "docs" / "images").iterdir()}
    assert {path.name for path in images - shown} == {"icon.png", "banner.jpg"}  # named in pyproject.toml


@cache
def flags(script: str) -> set[str]:
    """The flags a script or a command knows; those of training come from the recipe's fields."""
    script = {"train/finetune.py": "birefnet train", "train/ablation.py": "birefnet ablation"}.get(script, script)
    if "birefnet" in script:
        commands = build_parser()._subparsers._group_actions[0].choices
        return set(commands[script.split()[-1]]._option_string_actions)
    return set(re.findall(r'"(--[a-z][\w-]*)"', text_of(ROOT / script)))
