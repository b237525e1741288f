"""Random damage to files, as data: a mutation is a tuple (name, arguments ...) that ``apply`` can do again."""

from __future__ import annotations

import pickletools
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from . import containers
from .tensors import ODD_TENSORS, change_tensor

Mutation = tuple[Any, ...]

_HEAD = 600  # bytes at a file's ends that are hit as often as all others: headers and directories
_NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)
_TOKEN = re.compile(r'-?\d+(?:\.\d+)?|"[^"\n]{0,200}"|[A-Za-z_][A-Za-z0-9_.]*|[\[\]{}:=,]')
ODD_TOKENS = (
    "", "-1", "0", "1", "3", "0.5", "-0.0", "2147483648", "18446744073709551616", "9" * 400, "1e400", "nan", "inf",
    "NaN", "-Infinity", "null", "true", "false", '""', '"0"', '"\\u0000"', '"\\ud800"', '"\\u202e"', "[]", "{}", "[[]]",
    "[" * 3000, '{"a":' * 3000, '"' + "x" * 5000 + '"', "1979-05-27T07:32:00Z", "0x10", "1_000", "'", '"', "\\", "\n",
    "[1, 2, 3]", '{"a" = 1}', '"F64"', '"I8"', '"F8_E4M3"', '"BOOL"', '"swin_v1_l"', '"pvt_v2_b0"', '"64x64"', "#",
)  # fmt: skip


def draw(rng: random.Random, content: bytes, suffix: str) -> Mutation:
    """A mutation that makes sense for a file.

    Args:
        rng: The source of chance.
        content: What the file holds.
        suffix: Its ending, which says what it is made of.
    """
    parts = containers.split(content, suffix)
    kinds: list[Callable[[], Mutation]] = [lambda: _draw_bytes(rng, content)]
    if suffix == ".args":
        kinds = [lambda: _draw_text(rng, content), lambda: _draw_line(rng)]
    elif suffix in containers.TEXTS:
        kinds = [lambda: _draw_text(rng, content)] * 8 + kinds
    if suffix in (".pth", ".pt", ".safetensors"):
        kinds += [lambda: ("tensor", rng.randrange(10_000), rng.choice(ODD_TENSORS))]
    if parts:
        kinds += [lambda: _draw_part(rng, parts)] * 3
    return rng.choice(kinds)()


def apply(content: bytes, mutations: Sequence[Mutation], suffix: str) -> bytes:
    """The file with its damage; mutations that no longer fit it do nothing."""
    for name, *arguments in mutations:
        if name == "part":
            content = _apply_part(content, suffix, *arguments)
        elif name == "tensor":
            content = change_tensor(content, suffix, *arguments)
        else:
            content = _BYTES[name](content, *arguments)
    return content


def _draw_part(rng: random.Random, parts: Sequence[tuple[str, bytes]]) -> Mutation:
    index = rng.randrange(min(len(parts), 40)) if rng.random() < 0.5 else 0
    name, inner = parts[index]
    if rng.random() < 0.1:
        return "part", index, (rng.choice(("drop", "double")),)
    if name.endswith((".json", ".txt", "header")):
        return "part", index, _draw_text(rng, inner)
    if name.endswith(".pkl") and rng.random() < 0.7:
        return "part", index, ("opcode", rng.randrange(10_000), rng.randrange(10_000), rng.choice("dxr"))
    return "part", index, _draw_bytes(rng, inner)


def _apply_part(content: bytes, suffix: str, index: int, mutation: Mutation) -> bytes:
    parts = containers.split(content, suffix)
    if not parts or index >= len(parts):
        return content
    name, inner = parts[index]
    if mutation[0] == "drop":
        changed: list[tuple[str, bytes]] = []
    elif mutation[0] == "double":
        changed = [parts[index]] * 2
    else:
        changed = [(name, _BYTES[mutation[0]](inner, *mutation[1:]))]
    return containers.join([*parts[:index], *changed, *parts[index + 1 :]], suffix)


def _draw_text(rng: random.Random, content: bytes) -> Mutation:
    if rng.random() < 0.3:
        return "swap", rng.randrange(100_000), rng.randrange(100_000)
    return "token", rng.randrange(100_000), rng.choice(ODD_TOKENS)


def _draw_line(rng: random.Random) -> Mutation:
    return "line", rng.randrange(100_000), rng.randrange(100_000), rng.choice("dxr")


def _draw_bytes(rng: random.Random, content: bytes) -> Mutation:
    size = max(len(content), 1)

    def place() -> int:
        where = rng.random()
        return rng.randrange(min(size, _HEAD)) + (0 if where < 0.3 else max(0, size - _HEAD) if where < 0.5 else 0)

    start = place() if rng.random() < 0.6 else rng.randrange(size)
    length = rng.choice((1, 2, 4, 8, 16, 100, 1000, size // 3))
    kinds: tuple[Mutation, ...] = (
        ("flip", start, rng.randrange(8)),
        ("set", start, bytes([rng.randrange(256)])),
        ("set", start, _number(rng)),
        ("set", start, rng.randbytes(min(length, 64))),
        ("cut", rng.choice((start, size - 1 - min(length, size - 1)))),
        ("remove", start, length),
        ("repeat", start, length),
        ("zero", start, length),
        ("insert", start, rng.randbytes(min(length, 64))),
    )
    return rng.choice(kinds)


def _number(rng: random.Random) -> bytes:
    width = rng.choice((1, 2, 4, 8))
    value = rng.choice(_NUMBERS) % 256**width
    return value.to_bytes(width, rng.choice(("little", "big")))  # type: ignore[arg-type]


def _set(content: bytes, start: int, values: bytes) -> bytes:
    return content[:start] + values + content[start + len(values) :]


def _flip(content: bytes, start: int, bit: int) -> bytes:
    return _set(content, start, bytes([content[start] ^ 1 << bit])) if start < len(content) else content


def _token(content: bytes, index: int, new: str) -> bytes:
    text = content.decode("utf-8", "surrogateescape")
    found = list(_TOKEN.finditer(text))
    if not found:
        return new.encode()
    match = found[index % len(found)]
    return (text[: match.start()] + new + text[match.end() :]).encode("utf-8", "surrogateescape")


def _swap(content: bytes, first: int, second: int) -> bytes:
    """Two tokens of a text change places."""
    text = content.decode("utf-8", "surrogateescape")
    found = list(_TOKEN.finditer(text))
    if len(found) < 2:
        return content
    a, b = sorted((found[first % len(found)], found[second % len(found)]), key=lambda match: match.start())
    if a is b:
        return content
    changed = text[: a.start()] + b[0] + text[a.end() : b.start()] + a[0] + text[b.end() :]
    return changed.encode("utf-8", "surrogateescape")


def _opcode(content: bytes, first: int, second: int, how: str) -> bytes:
    """One instruction of a pickle is dropped ("d"), exchanged with another ("x") or replaced by it ("r")."""
    try:
        starts = [position for _, _, position in pickletools.genops(content) if position is not None]
    except Exception:  # damaged before
        return content
    if len(starts) < 3:
        return content
    ops = [content[start:end] for start, end in zip(starts, [*starts[1:], len(content)], strict=True)]
    return b"".join(_rearranged(ops, first, second, how))


def _line(content: bytes, first: int, second: int, how: str) -> bytes:
    """As ``_opcode`` for the lines of a text."""
    return b"\n".join(_rearranged(content.split(b"\n"), first, second, how))


def _rearranged(items: list[bytes], first: int, second: int, how: str) -> list[bytes]:
    a, b = first % len(items), second % len(items)
    if how == "d":
        return items[:a] + items[a + 1 :]
    items[a], items[b] = items[b], items[a] if how == "x" else items[b]
    return items


_BYTES: dict[str, Callable[..., bytes]] = {
    "flip": _flip,
    "set": _set,
    "cut": lambda content, length: content[:length],
    "remove": lambda content, start, length: content[:start] + content[start + length :],
    "repeat": lambda content, start, length: content[: start + length] + content[start:],
    "zero": lambda content, start, length: _set(content, start, bytes(len(content[start : start + length]))),
    "insert": lambda content, start, values: content[:start] + values + content[start:],
    "token": _token,
    "swap": _swap,
    "opcode": _opcode,
    "line": _line,
}
