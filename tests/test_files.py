"""Files are written whole or not at all, and what killed writers left is found by the next one."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from birefnet_core.files import atomic_folder, atomic_path, first_free, remove_abandoned_parts, remove_part

ROOT = Path(__file__).resolve().parents[1]
WRITER = """
import sys, time
from pathlib import Path
from birefnet_core.files import atomic_path
with atomic_path(Path(sys.argv[1])) as part:
    open(part, "wb").write(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""
FOLDER_WRITER = """
import os, sys, time
from pathlib import Path
from birefnet_core.files import atomic_folder
rename = os.rename
def slow_rename(source, target):
    rename(source, target)
    if sys.argv[2:] == ["between"]:  # the former folder has gone, the new one is not there yet
        print("writing", flush=True)
        time.sleep(60)
os.rename = slow_rename
with atomic_folder(Path(sys.argv[1])) as part:
    (part / "half").write_bytes(b"half")
    if len(sys.argv) == 2:
        print("writing", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def writer():
    """Starts processes that are in the middle of writing a file."""
    processes = []

    def start(path, *more, program=WRITER):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", program, str(path), *more]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert process.stdout.readline() == b"writing\n"
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def write(path, text="new"):
    with atomic_path(path) as part:
        Path(part).write_text(text)


def parts(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(".part"))


@pytest.mark.parametrize(
    "name", ["a.png", "m" * 251 + ".png", "長" * 83 + ".png", "line\nbreak", os.fsdecode(b"\xff.png")]
)
def test_names_of_any_kind_are_written(tmp_path, name):
    write(tmp_path / name)
    assert (tmp_path / name).read_text() == "new"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_an_error_leaves_the_former_file_and_nothing_else(tmp_path, error):
    (tmp_path / "a").write_text("old")
    with pytest.raises(error), atomic_path(tmp_path / "a") as part:
        Path(part).write_text("half")
        raise error
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be deleted")
def test_an_interrupt_after_the_rename_leaves_the_file_of_the_next_writer(tmp_path, monkeypatch):
    replace, parts = os.replace, []

    def replace_and_interrupt(source, target):
        replace(source, target)
        Path(source).write_text("another writer's")
        parts.append(Path(source))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", replace_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a")
    assert parts[0].read_text() == "another writer's"
    assert sorted(tmp_path.iterdir()) == sorted([*parts, tmp_path / "a"])


def test_permissions_are_those_of_ordinary_files(tmp_path, monkeypatch):
    # Setting it, if only to read it, would change what other threads create meanwhile.
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask was set"))
    write(tmp_path / "a")
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_what_killed_writers_left_goes_with_the_next_write(tmp_path, writer):
    for process in [writer(tmp_path / "a") for _ in range(3)]:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(parts(tmp_path)) == 3
    write(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]


def test_it_can_be_removed_without_a_write(tmp_path, writer):
    process = writer(tmp_path / "a")
    process.kill()
    process.wait()
    remove_abandoned_parts(tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_another_file_s_and_a_living_writer_s_stay(tmp_path, writer):
    dead = writer(tmp_path / "b")
    dead.kill()
    dead.wait()
    writer(tmp_path / "a")
    before = parts(tmp_path)
    write(tmp_path / "a")
    remove_abandoned_parts(tmp_path / "a")
    assert parts(tmp_path) == before
    assert len(before) == 2


def test_files_that_only_look_like_it_stay(tmp_path, writer):
    (tmp_path / "mine").write_text("mine")
    process = writer(tmp_path / "a")
    process.kill()
    process.wait()
    (part,) = parts(tmp_path)
    (tmp_path / part).unlink()
    (tmp_path / part).symlink_to(tmp_path / "mine")
    (tmp_path / part.replace(".0.", ".1.")).mkdir()
    write(tmp_path / "a")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "a").read_text() == "new"


def test_writers_at_the_same_time_all_succeed(tmp_path):
    errors = []

    def work(text):
        try:
            for _ in range(50):
                write(tmp_path / "a", text * 1000)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(text,)) for text in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir(tmp_path) == ["a"]
    assert len(set((tmp_path / "a").read_text())) == 1


def write_folder(path, text="new"):
    with atomic_folder(path) as part:
        (part / "file").write_text(text)


def test_folders_are_written_whole_and_replace_the_former_one(tmp_path):
    for text in ("old", "new"):
        write_folder(tmp_path / "a", text)
    assert os.listdir(tmp_path) == ["a"]
    assert os.listdir(tmp_path / "a") == ["file"]
    assert (tmp_path / "a" / "file").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_an_error_leaves_the_former_folder_and_nothing_else(tmp_path, error):
    write_folder(tmp_path / "a", "old")
    with pytest.raises(error), atomic_folder(tmp_path / "a") as part:
        (part / "half").touch()
        raise error
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a" / "file").read_text() == "old"


@pytest.mark.parametrize("again", [write_folder, remove_abandoned_parts])
def test_folders_of_killed_writers_go_with_the_next_of_the_same_path(tmp_path, writer, again):
    write_folder(tmp_path / "a", "old")
    for process in [writer(tmp_path / "a", program=FOLDER_WRITER) for _ in range(2)]:
        process.kill()
        process.wait()
    assert len(os.listdir(tmp_path)) == 5
    again(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]
    assert os.listdir(tmp_path / "a") == ["file"]


def test_a_former_folder_is_not_removed_by_who_does_not_know_its_name(tmp_path, writer):
    """A training removes temporary files below its folder; frames of a clip that were to be replaced went with them."""
    write_folder(tmp_path / "a", "old")
    dead = writer(tmp_path / "a", "between", program=FOLDER_WRITER)
    dead.kill()
    dead.wait()
    for part in tmp_path.glob(".*.part"):
        remove_part(part)
    remove_abandoned_parts(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a" / "file").read_text() == "old"


def test_what_cannot_be_written_is_told_by_its_own_name(tmp_path):
    with pytest.raises(OSError) as raised, atomic_path(tmp_path / "nowhere" / "a"):
        pass
    assert raised.value.filename == str(tmp_path / "nowhere" / "a")


def test_folders_of_others_stay(tmp_path, writer):
    dead = writer(tmp_path / "b", program=FOLDER_WRITER)
    dead.kill()
    dead.wait()
    writer(tmp_path / "a", program=FOLDER_WRITER)
    before = sorted(os.listdir(tmp_path))
    write_folder(tmp_path / "a")
    remove_abandoned_parts(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "a"])


def test_a_folder_that_was_taken_away_when_its_writer_died_comes_back(tmp_path, writer):
    write_folder(tmp_path / "a", "old")
    process = writer(tmp_path / "a", "between", program=FOLDER_WRITER)
    process.kill()
    process.wait()
    assert not (tmp_path / "a").exists()
    remove_abandoned_parts(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a" / "file").read_text() == "old"


def test_a_free_name_is_taken_by_one_and_left_without_a_trace(tmp_path, writer):
    (tmp_path / "0").write_text("old")
    writer(tmp_path / "1")
    dead = writer(tmp_path / "2")
    dead.kill()
    dead.wait()
    names = [tmp_path / str(number) for number in range(9)]
    before = parts(tmp_path)
    with first_free(names) as first, first_free(names) as second:
        assert [first.name, second.name] == ["2", "3"]
        write(first)
    with pytest.raises(ValueError), first_free(names) as third:
        assert third.name == "3"
        raise ValueError
    assert len(parts(tmp_path)) == len(before) - 1  # that of the writer that lives
    assert (tmp_path / "0").read_text() == "old" and (tmp_path / "2").read_text() == "new"
