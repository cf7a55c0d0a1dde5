"""Rows of a store as tensors on the device that trains."""

import mmap

import numpy as np
import torch
from torch import Tensor

# Part of a job's share of a GPU that an array may take; a larger one stays in the file and is copied batch by batch.
_RESIDENT = 0.6


class Rows:
    """An array of images, masks or labels, read by row number.

    On CUDA all rows are copied to the device once if they fit, so that a batch is one gather; else, and on the CPU,
    they stay in the memory-mapped file. Reading never waits for the device, nor for the disk after `prefetch`.

    Args:
        array: (N, ...) array, usually memory-mapped. count: how many of its first rows are used.
        share: of a GPU's memory, what the job may take beside others.
    """

    def __init__(self, array: np.ndarray, count: int, device: torch.device, share: float = 1.0):
        self.device = device
        self._array = np.asarray(array)[:count]
        self._file = array.base if isinstance(array.base, mmap.mmap) else None
        self._resident: Tensor | None = None
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            fits = self._array.nbytes < _RESIDENT * min(free, share * total)
            self._resident = torch.tensor(self._array, device=device) if fits else None

    def prefetch(self, rows: Tensor) -> None:
        """Have the system read the rows (B,), numbers on the CPU, while something else is computed.

        Without it each row is waited for, and brings what lies around it: in random order mostly other rows.
        """
        if self._file is not None and self._resident is None:
            size = self._array[0].nbytes
            for row in rows.tolist():
                start = row * size // mmap.PAGESIZE * mmap.PAGESIZE
                self._file.madvise(mmap.MADV_WILLNEED, start, (row + 1) * size - start)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """The rows (B,), numbers on the CPU, as a tensor (B, ...) on the device."""
        if self._resident is not None:
            return self._resident[self._to_device(rows)]
        return self._to_device(torch.from_numpy(self._array[rows.numpy()]))

    def _to_device(self, values: Tensor) -> Tensor:
        if self.device.type == "cuda":  # from pinned memory a copy queues like a kernel
            return values.pin_memory().to(self.device, non_blocking=True)
        return values.to(self.device)
