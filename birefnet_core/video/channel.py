"""Bounded queues between threads, whose ends learn of each other's failures."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
POLL = 0.1  # seconds between two looks for cancelling, and what Windows needs to notice Ctrl+C


class Closed(Exception):
    """The other end takes no more."""


class Channel(Generic[T]):
    """A queue of at most ``size`` items from one thread to another."""

    def __init__(self, size: int) -> None:
        self._size, self._items = size, deque[T]()
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None

    def put(self, item: T, poll: Callable[[], None] = lambda: None) -> None:
        """Waits for a place.

        Args:
            item: Handed over.
            poll: Called while waiting; what it raises passes through.

        Raises:
            Closed: The reader is gone.
        """
        with self._changed:
            while len(self._items) >= self._size and not self._closed:
                self._changed.wait(POLL)
                poll()
            if self._closed:
                raise Closed
            self._items.append(item)
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def end(self, error: BaseException | None = None) -> None:
        """No more items come; an error is raised at the reader after those that came."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """The reader is gone."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def read(self, poll: Callable[[], None] = lambda: None) -> Iterator[T]:
        """Items until the end.

        Args:
            poll: Called while waiting; what it raises passes through.
        """
        while True:
            with self._changed:
                while not self._items and not self._ended and not self._closed:
                    self._changed.wait(POLL)
                    poll()
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
