"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from types import ModuleType

from .errors import ConfigError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be deleted and so needs no lock
    fcntl = None

_NEW, _OLD = ".new", ".old"  # folders beside a temporary file
_SLOTS = 8  # temporary files of one path that are checked for abandoned ones; each process writing it has one


def path_of(value: object, name: str) -> Path:
    """A path that a caller gave.

    Raises:
        ConfigError: Something else, such as a tensor or a network in the wrong place.
    """
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{name} is a {type(value).__name__}, expected a path: check the order of the arguments.")
    return Path(value)


def possible(path: str | Path) -> Path:
    """The path, if there can be a file of its name: where there cannot, Python raises a ValueError of its own.

    Raises:
        OSError: It has a null character, or one that names on this system cannot have.
    """
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:
        name = b"\0"
    if b"\0" in name:
        raise OSError(errno.EINVAL, "no file can have this name", str(path))
    return Path(path)


def make_parent(path: Path) -> None:
    """Makes the folder of a file that is to be written.

    Raises:
        OSError: It cannot be made, or there can be no file of this name.
    """
    possible(path).parent.mkdir(parents=True, exist_ok=True)


def free_space(folder: Path) -> int | None:
    """Bytes that are free on the disk of a folder, which need not be there yet; None where nobody knows."""
    folder = folder.absolute()
    disk = shutil.disk_usage(next(path for path in (folder, *folder.parents) if os.path.exists(path)))
    return disk.free if disk.total > 0 else None  # some network drives give 0 for all


def file_version(path: str | Path) -> str:
    """Text that is another when a file is. Files copied from archives and images of containers may share a time and a
    size, so the time at which it was put there counts, too."""
    status = os.stat(path)
    return f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_size}"


def file_identity(path: str | Path) -> tuple[int, int] | None:
    """What a file or folder is on its disk, the same by all its names; None for what is not there or has no number."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if status.st_ino else None


def is_finished(path: Path) -> bool:
    """Whether there is a file that is not empty, as a full disk leaves them."""
    return os.path.isfile(path) and os.path.getsize(path) > 0


def is_stream(path: Path) -> bool:
    """Whether a path is a pipe or a device, such as /dev/stdout: written through, and never replaced by a file."""
    place = os.path.abspath(path)
    if place.startswith(("/dev/", "/proc/")) and not place.startswith("/dev/shm/"):  # a folder of files in memory
        return os.path.exists(path)
    return os.path.exists(path) and not os.path.isfile(path)


def stream_conflict(path: Path) -> str | None:
    """Why a path cannot be an output that replaces what is there: a pipe or a device. None for anything else."""
    if is_stream(path) and not os.path.isdir(path):
        return f"{path} is a pipe or a device, expected the name of a file; give another name"
    return None


@contextlib.contextmanager
def atomic_path(path: Path, *, replace: bool = True) -> Iterator[str]:
    """A temporary file beside ``path``, renamed to it when the block succeeds and deleted when it raises.

    Without ``replace`` nothing that is at ``path`` by then is lost.

    What a killed process left of the same ``path`` is deleted, and never what another process is writing: a temporary
    file is locked as long as its process lives. So the block writes into that file: another in its place has no lock.

    Raises:
        FileExistsError: Without ``replace`` there is something at ``path`` by then.
        OSError: The folder cannot be written to.
    """
    if os.path.isdir(possible(path)):  # else a link to a folder would be replaced, and what is read through it lost
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    descriptor, part = _create_part(path)
    try:  # no call between, at which a signal would be raised
        yield part
        os.fsync(descriptor)
        if fcntl is None:  # Windows renames and deletes no open file
            os.close(descriptor)
        (os.replace if replace else _rename_new)(part, path)
    except BaseException:
        if fcntl is None:
            with contextlib.suppress(OSError):  # closed already
                os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
        else:
            _unlink_own(part, descriptor)
        raise
    finally:
        if fcntl is not None:
            os.close(descriptor)


def _rename_new(part: str, path: Path) -> None:
    """Renames a file to a name at which nothing is; between a look and ``os.replace`` a file could appear there.

    Raises:
        FileExistsError: Something is.
    """
    try:
        if fcntl is None:  # Windows, where this replaces nothing
            os.rename(part, path)
            return
        try:
            os.link(part, path)
        except FileExistsError:
            raise
        except OSError:  # a disk without hard links: first an empty file takes the name
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            try:
                os.replace(part, path)
            except BaseException:
                os.unlink(path)
                raise
        else:
            os.unlink(part)
    except FileExistsError as error:
        raise _appeared(path) from error


def _appeared(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "another program has written it meanwhile, and it is kept", str(path))


def _unlink_own(part: str, descriptor: int) -> None:
    """Deletes a temporary file unless it has been renamed: by then the name may be another process's."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), os.lstat(part)):
            os.unlink(part)


@contextlib.contextmanager
def first_free(paths: Iterable[Path]) -> Iterator[Path]:
    """The first path at which nothing is and that no other process writes; taken for all others until the block ends.

    Its first temporary file stands for it meanwhile, so the next process finds and removes what a killed one left.

    Raises:
        OSError: The folder cannot be written to.
    """
    for path in paths:
        descriptor, part = _create_part(path)
        try:
            if part == _part_name(path, 0) and not os.path.lexists(path):
                yield path
                return
        finally:
            _delete_part(descriptor, part)


def check_writable(path: Path) -> None:
    """Finds out whether ``atomic_path`` can write a file in a folder that is there: by creating its temporary file.

    Raises:
        OSError: It cannot, or no file can have this name.
    """
    with contextlib.suppress(FileNotFoundError):
        os.lstat(path)
    _delete_part(*_create_part(path))


def _delete_part(descriptor: int, part: str) -> None:
    """Closes and deletes a temporary file."""
    if fcntl is None:  # Windows deletes no open file
        os.close(descriptor)
        with contextlib.suppress(OSError):  # the next process has found it
            os.unlink(part)
    else:
        _unlink_own(part, descriptor)
        os.close(descriptor)


def remove_abandoned_parts(path: Path) -> None:
    """Deletes the temporary files that killed processes left of ``path``."""
    for slot in range(_SLOTS):
        part = _part_name(path, slot)
        if os.path.lexists(part):
            _remove_abandoned(part, path)


def remove_part(part: Path) -> None:
    """Deletes a temporary file of any name unless a living process is writing it, or a former folder waits beside it.

    That goes back to its place when the folder is written again, and its name is not known here.
    """
    if not os.path.lexists(f"{part}{_OLD}"):
        _remove_abandoned(str(part), part)


def _part_name(path: Path, slot: int) -> str:
    """Of fixed length, for names of the 255 bytes file systems allow; and found again without listing the folder."""
    digest = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    return str(path.with_name(f".birefnet-{digest}.{slot}.part"))


def _create_part(path: Path) -> tuple[int, str]:
    """Creates and locks a temporary file; its number is the first that no living process has."""
    possible(path)
    remove_abandoned_parts(path)
    for slot in itertools.count():
        part = _part_name(path, slot)
        descriptor = -1
        try:
            # Not tempfile.mkstemp: its files are readable by their owner alone, and os.umask, which says what ordinary
            # files are like, can only be read by changing it for all threads. os.open applies it.
            descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
            if _try_lock(descriptor):
                return descriptor, part
            os.close(descriptor)
        except FileExistsError:
            continue
        except BaseException as error:  # a signal, even where it came before the number was known here
            if descriptor >= 0:
                os.close(descriptor)
            _remove_abandoned(part, path)
            if isinstance(error, OSError):
                error.filename = str(path)  # the name that users know
            raise
    raise AssertionError("there is always a free number")


def _try_lock(descriptor: int) -> bool:
    """Locks a new file; False where another process takes it for abandoned before that, and deletes it."""
    try:
        _lock(descriptor)
    except BlockingIOError:
        return False
    except OSError:  # this file system has no locks: nobody will delete the file
        pass
    return fcntl is None or os.fstat(descriptor).st_nlink > 0


def _remove_abandoned(part: str, path: Path) -> None:
    """Deletes a temporary file of ``path``, and the folders beside it, unless a living process is writing it."""
    try:
        if fcntl is None:
            os.unlink(part)
            _remove_folders(part, path)
            return
        descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:  # gone, in use, another user's, or no file
        return
    try:
        _lock(descriptor)
        if os.path.samestat(os.fstat(descriptor), os.lstat(part)):  # else it was finished and renamed meanwhile
            _remove_folders(part, path)
            os.unlink(part)
    except OSError:  # locked by its process, or gone
        pass
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_folder(path: Path, seconds: float) -> Iterator[None]:
    """Within this, no other process has the folder locked; nothing is written for it, and the end of a process ends it.

    Where there are no locks, as on Windows and some network disks, nothing is locked.

    Args:
        path: The folder.
        seconds: How long to wait for another process.

    Raises:
        BlockingIOError: Another process has it locked all that time.
    """
    if fcntl is None:
        yield
        return
    descriptor, end = os.open(path, os.O_RDONLY), time.monotonic() + seconds
    try:
        while True:
            try:
                _lock(descriptor)
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise
                time.sleep(0.1)
                continue
            except OSError:
                pass
            break
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough where forks of this process still live
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Locks a file until it is closed.

    Raises:
        BlockingIOError: Another process has locked it.
        OSError: The file system has no locks.
    """
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def atomic_folder(path: Path, *, replace: bool = True, unimportant: Collection[str] = ()) -> Iterator[Path]:
    """``atomic_path`` for a folder: what was at ``path`` before is replaced when the block succeeds.

    A locked temporary file stands for the temporary folder beside it. A link stays one.

    Args:
        path: The folder.
        replace: Whether to replace what is there by then; else only a folder without files.
        unimportant: Names of files, in lower case, that do not count.

    Raises:
        FileExistsError: Without ``replace`` there is something at ``path`` by then.
        OSError: The folder above cannot be written to.
    """
    path = Path(os.path.realpath(possible(path)))
    descriptor, part = _create_part(path)
    new, old = Path(part + _NEW), Path(part + _OLD)
    try:
        new.mkdir()
        yield new
        if not replace and _holds_files(path, unimportant):
            raise _appeared(path)
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, old)
        if not replace and _holds_files(old, unimportant):  # by now; it goes back to its place
            raise _appeared(path)
        os.rename(new, path)
    finally:
        _remove_folders(part, path)
        if fcntl is None:  # Windows deletes no open file
            os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        if fcntl is not None:
            os.close(descriptor)


def _holds_files(path: Path, unimportant: Collection[str]) -> bool:
    """Whether there is something else than a folder without files."""
    if not os.path.isdir(path):
        return os.path.lexists(path)
    return any(name.lower() not in unimportant for name in os.listdir(path))


def _remove_folders(part: str, path: Path) -> None:
    """Removes the folders of a temporary file; the former one goes back to its place if nothing has taken that."""
    if not os.path.lexists(path):
        with contextlib.suppress(OSError):
            os.rename(part + _OLD, path)
    for folder in (part + _NEW, part + _OLD):
        shutil.rmtree(folder, ignore_errors=True)
