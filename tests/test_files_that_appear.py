"""Without leave to replace, a file that appears while another is written in its place is never lost."""

import errno
import os
import threading
from pathlib import Path

import pytest
import torch

import birefnet_core as bc
from birefnet_core import files
from birefnet_core.files import atomic_folder, atomic_path, check_writable
from birefnet_core.images import write_mask

MEANWHILE = "another program has written it meanwhile"


def _no_links(*names, **options):
    raise OSError(errno.EOPNOTSUPP, "no hard links")


@pytest.fixture(params=["links", "no links", "as Windows"])
def disk(request, monkeypatch):
    """Each way in which a file gets a name that is free."""
    if request.param == "as Windows":

        def rename(source, target):  # there this replaces nothing
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, "exists", str(target))
            os.replace(source, target)

        monkeypatch.setattr(files, "fcntl", None)
        monkeypatch.setattr(os, "rename", rename)
    if request.param != "links":
        monkeypatch.setattr(os, "link", _no_links)
    return request.param


def write(path, text, before_the_end=lambda: None):
    with atomic_path(path, replace=False) as part:
        Path(part).write_text(text)
        before_the_end()


def test_a_new_file_is_written_whole(disk, tmp_path):
    write(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").stat().st_nlink == 1
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize(
    "appear",
    [
        lambda path: path.write_text("theirs"),
        lambda path: path.touch(),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("nowhere"),
    ],
    ids=["file", "empty", "folder", "link"],
)
def test_what_appears_meanwhile_stays(disk, appear, tmp_path):
    with pytest.raises(FileExistsError, match=MEANWHILE):
        write(tmp_path / "a", "ours", lambda: appear(tmp_path / "a"))
    assert os.listdir(tmp_path) == ["a"]
    (tmp_path / "b").mkdir()
    appear(tmp_path / "b" / "a")
    ours, theirs = tmp_path / "a", tmp_path / "b" / "a"
    assert os.lstat(ours).st_mode == os.lstat(theirs).st_mode
    assert not ours.is_file() or ours.read_text() == theirs.read_text()


def test_of_many_writers_one_writes_and_the_others_are_told(disk, tmp_path):
    if disk == "as Windows":
        pytest.skip("two steps stand for its one")
    barrier, told = threading.Barrier(8), []

    def run(number):
        try:
            write(tmp_path / "a", str(number) * 1000, barrier.wait)
        except FileExistsError as error:
            told.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 7
    assert os.listdir(tmp_path) == ["a"]
    text = (tmp_path / "a").read_text()
    assert len(text) == 1000 and len(set(text)) == 1


def test_an_error_after_the_name_was_taken_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", _no_links)

    def refuse(source, target):
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="the disk is broken"):
        write(tmp_path / "a", "new")
    assert os.listdir(tmp_path) == []


def test_a_folder_is_written_where_none_is_or_one_without_files(tmp_path):
    for there in ((), ("a",), ("a", "a/.DS_Store")):
        for name in there:
            path = tmp_path / name
            path.touch() if "/" in name else path.mkdir()
        with atomic_folder(tmp_path / "a", replace=False, unimportant={".ds_store"}) as folder:
            (folder / "new").write_text("new")
        assert [path.name for path in tmp_path.rglob("*")] == ["a", "new"]
        (tmp_path / "a" / "new").unlink()
        (tmp_path / "a").rmdir()


@pytest.mark.parametrize("appeared", ["a/theirs", "a"])
@pytest.mark.parametrize("late", [False, True])
def test_a_folder_that_fills_meanwhile_stays(late, appeared, tmp_path, monkeypatch):
    def appear():
        (tmp_path / appeared).parent.mkdir(exist_ok=True)
        (tmp_path / appeared).write_text("theirs")

    rename = os.rename

    def appear_and_rename(source, target):  # between the look and the renaming
        if late and str(source) == str(tmp_path / "a"):
            appear()
        rename(source, target)

    monkeypatch.setattr(os, "rename", appear_and_rename)
    with (
        pytest.raises(FileExistsError, match=MEANWHILE),
        atomic_folder(tmp_path / "a", replace=False) as folder,
    ):
        (folder / "ours").write_text("ours")
        if not late:
            appear()
    assert (tmp_path / appeared).read_text() == "theirs"
    assert os.listdir(tmp_path) == ["a"]


def test_whether_a_file_can_be_written_leaves_no_trace(tmp_path):
    (tmp_path / "a").write_text("old")
    check_writable(tmp_path / "a")
    check_writable(tmp_path / "b")
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"
    with pytest.raises(OSError):
        check_writable(tmp_path / "nowhere" / "b")
    with pytest.raises(OSError):
        check_writable(tmp_path / ("x" * 300))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_to_a_folder_is_not_replaced(tmp_path, overwrite):
    (tmp_path / "folder").mkdir()
    place = tmp_path / "mask.png"
    place.symlink_to("folder")
    with pytest.raises(bc.ImageError, match="Is a directory"):
        write_mask(place, torch.zeros(4, 4), overwrite=overwrite)
    assert place.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "mask.png"]
