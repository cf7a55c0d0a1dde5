"""The device a run computes on and how: threads, precision of matrix products, attention kernel, peak memory."""

import contextlib
import ctypes
import resource
from collections.abc import Iterator

import torch

from viny.config.sections import Compute
from viny.errors import VinyError
from viny.provenance import processor


def select_device(compute: Compute) -> torch.device:
    """Set up torch for this process and return the device to train on.

    Raises:
        VinyError: CUDA is asked for and there is none.
    """
    torch.set_num_threads(compute.threads)
    available = torch.cuda.is_available()
    if compute.device == "cuda" and not available:
        raise VinyError("compute.device is cuda, but torch finds no CUDA device; set it to auto or cpu")
    device = torch.device("cuda" if available and compute.device != "cpu" else "cpu")
    set_matmul_precision(compute.matmul_precision, device)
    _keep_freed_memory()
    return device


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next step, up to 2 GB, instead of giving it back to the system.

    A step frees all its activations, and fetching them again costs a page fault for every 4 KB. With another C library
    nothing is changed.
    """
    with contextlib.suppress(OSError, TypeError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD, an int
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: the largest that is allowed


def set_matmul_precision(name: str, device: torch.device) -> None:
    """Choose how products of float32 matrices are computed.

    Args:
        name: of `torch.set_float32_matmul_precision`, or `auto`: TF32 on a GPU; on a CPU `medium`, which reroutes
            products to oneDNN and is often faster, unless that would round them, as it does on CPUs with AMX.
    """
    torch.set_float32_matmul_precision("medium" if name == "auto" else name)
    if name == "auto" and device.type == "cpu" and float32_products(device) != "float32":
        torch.set_float32_matmul_precision("highest")


def float32_products(device: torch.device) -> str:
    """What products of float32 matrices are really computed in: `float32`, `tf32` or `bfloat16`."""
    ones = torch.eye(256, device=device)
    kept = {bits: (torch.full_like(ones, 1 + 2**-bits) @ ones).min().item() > 1 for bits in (9, 12)}
    return "float32" if kept[12] else "tf32" if kept[9] else "bfloat16"


def attention_kernel(name: str, device: torch.device) -> str:
    """The kernel that `compute.attention` stands for on a device, `fused` or `explicit`.

    `auto` stays explicit on a CPU even where fused would be as fast: they round differently.
    """
    return name if name != "auto" else "fused" if device.type == "cuda" else "explicit"


def device_name(device: torch.device) -> str:
    """The processor's or accelerator's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """On CUDA, work on a stream of its own, because the default one cannot be captured; elsewhere do nothing."""
    if device.type != "cuda":
        yield
        return
    outside, stream = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    stream.wait_stream(outside)
    with torch.cuda.stream(stream):
        yield
    outside.wait_stream(stream)


def peak_memory_mb(device: torch.device) -> float:
    """Highest memory in use so far, MiB: of the device on CUDA, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
