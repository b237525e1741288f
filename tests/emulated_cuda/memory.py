"""Which memory is the device's, and how much of it is in use."""

from __future__ import annotations

import os

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

TOTAL = int(os.environ.get("EMULATED_CUDA_BYTES", 8 * 2**30))
BLOCK = 512  # bytes, of which CUDA's allocator gives whole multiples
SWEEP = 256  # allocations between two looks at memory that has been in use for long


class Memory:
    """Storages of the device, by address of torch's object. Weak references keep addresses from being used again.

    Attributes:
        allocated: Bytes in use.
        peak: Most bytes that were.
        limit: Bytes there may be.
    """

    def __init__(self) -> None:
        self.allocated = self.peak = 0
        self.limit = TOTAL
        self._all: dict[int, tuple[StorageWeakRef, int]] = {}
        self._recent: dict[int, tuple[StorageWeakRef, int]] = {}
        self._allocations = 0
        self._unclear: dict[int, StorageWeakRef] = {}

    def holds(self, tensor: object) -> bool:
        """Whether a tensor is on the device."""
        if not isinstance(tensor, Tensor):
            return False
        try:
            return tensor.untyped_storage()._cdata in self._all
        except (NotImplementedError, RuntimeError):  # sparse tensors and those without memory
            return False

    def mark(self, tensor: Tensor) -> None:
        """Puts a tensor's memory on the device.

        Raises:
            torch.OutOfMemoryError: There is no room.
        """
        storage = tensor.untyped_storage()
        if storage._cdata in self._all:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._allocations += 1
        self.count(all_of_it=self._allocations % SWEEP == 0)
        if self.allocated + size > self.limit and self.count() + size > self.limit:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")
        self.allocated += size
        self.peak = max(self.peak, self.allocated)
        self._all[storage._cdata] = self._recent[storage._cdata] = StorageWeakRef(storage), size

    def mark_later(self, tensor: Tensor) -> None:
        """Notes that the backward pass made a tensor of which only later operations show where it is."""
        storage = tensor.untyped_storage()
        self._unclear[storage._cdata] = StorageWeakRef(storage)

    def mark_if_unclear(self, tensor: Tensor) -> None:
        """Puts a tensor on the device that ``mark_later`` was called with."""
        noted = self._unclear.get(tensor.untyped_storage()._cdata)
        if noted is not None and not noted.expired():
            self.mark(tensor)

    def count(self, all_of_it: bool = True) -> int:
        """Bytes in use, after forgetting memory that was freed; of the recent one only where not ``all_of_it``."""
        looked_at = self._all if all_of_it else self._recent
        for address in [address for address, (storage, _) in looked_at.items() if storage.expired()]:
            self.allocated -= self._all.pop(address)[1]
            self._recent.pop(address, None)
        if all_of_it:
            self._recent.clear()
            self._unclear = {a: storage for a, storage in self._unclear.items() if not storage.expired()}
        return self.allocated


MEMORY = Memory()
