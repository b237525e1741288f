"""Names that others chose reach terminals and logs without power over them."""

from pathlib import Path

import pytest

from birefnet_core.errors import BiRefNetError, DatasetError, ImageError, MemoryLimitError
from birefnet_core.text import did_you_mean, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("photo 1.jpg", "photo 1.jpg"),
        ("ünï 猫 😀.png", "ünï 猫 😀.png"),
        ("a\x1b[31mred", r"a\x1b[31mred"),
        ("two\nlines", r"two\nlines"),
        ("\r\b\x07\x7f\x9b", r"\r\x08\x07\x7f\x9b"),
        ("\u2028\u202egnp.exe", r"\u2028\u202egnp.exe"),
        ("raw\udcff", r"raw\udcff"),
        (Path("a\tb"), r"a\tb"),
    ],
)
def test_control_characters_are_escaped(text, shown):
    assert printable(text) == shown


def test_line_breaks_of_a_message_may_stay():
    assert printable("one\n\x1btwo", keep="\n") == "one\n\\x1btwo"


def test_messages_end():
    message = str(ImageError(f"/folder/a.png: holds {'x' * 10**6}. Make it anew."))
    assert len(message) < 10_000 and message.startswith("/folder/a.png") and message.endswith("Make it anew.")
    assert len(str(DatasetError("a.png\n" * 10_000))) == 60_000
    assert did_you_mean("swin_v1_l" * 10**6, ["swin_v1_l"]) == ""


@pytest.mark.parametrize(
    ("value", "meant"), [("small.pt", "small.ckpt"), ("smal", "small.ckpt"), ("other.ckpt", ""), (None, ""), ("", "")]
)
def test_what_is_compared_can_be_a_part_of_the_names(value, meant):
    hint = did_you_mean(value, ["small.ckpt", "large.ckpt"], lambda name: name.split(".")[0])
    assert hint == (f" Did you mean {meant!r}?" if meant else "")


@pytest.mark.parametrize("kind", [BiRefNetError, ImageError, DatasetError, MemoryLimitError])
def test_errors_show_their_names_escaped(kind):
    assert str(kind("a\x1b[0m.png: not there")) == r"a\x1b[0m.png: not there"
