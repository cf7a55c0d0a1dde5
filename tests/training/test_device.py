"""float32 on this machine: `auto` never rounds on a CPU, what was computed in is found out; freed memory is kept."""

import platform
import subprocess
import sys

import pytest
import torch

from viny.config.sections import Compute
from viny.training import device
from viny.training.device import attention_kernel, float32_products, select_device, set_matmul_precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _restore():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def error(a, b):
    exact = a.double() @ b.double()
    return ((a @ b - exact).abs().max() / exact.abs().max()).item()


def test_auto_computes_float32_products_in_float32():
    select_device(Compute(device="cpu"))
    a, b = torch.randn(2, 300, 300, generator=torch.Generator().manual_seed(0))
    assert error(a, b) < 1e-5
    assert float32_products(CPU) == "float32"


@pytest.mark.parametrize("name", ["highest", "high", "medium"])
def test_what_products_are_computed_in_agrees_with_their_error(name):
    set_matmul_precision(name, CPU)
    assert torch.get_float32_matmul_precision() == name
    a, b = torch.randn(2, 300, 300, generator=torch.Generator().manual_seed(0))
    worst = {"float32": 1e-5, "tf32": 2e-3, "bfloat16": 2e-2}[float32_products(CPU)]
    assert worst / 100 < error(a, b) < worst


@pytest.mark.parametrize(("found", "chosen"), [("float32", "medium"), ("bfloat16", "highest"), ("tf32", "highest")])
def test_auto_takes_the_fast_way_only_where_it_does_not_round(found, chosen, monkeypatch):
    monkeypatch.setattr(device, "float32_products", lambda _: found)
    set_matmul_precision("auto", CPU)
    assert torch.get_float32_matmul_precision() == chosen


@pytest.mark.parametrize(("dtype", "name"), [(torch.float32, "float32"), (torch.bfloat16, "bfloat16")])
def test_rounding_is_noticed(dtype, name, monkeypatch):
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: product(a.to(dtype).float(), b.to(dtype).float()))
    set_matmul_precision("highest", CPU)
    assert float32_products(CPU) == name


def test_auto_names_the_kernel_that_it_stands_for():
    assert attention_kernel("auto", CPU) == "explicit"
    assert attention_kernel("auto", torch.device("cuda")) == "fused"
    assert attention_kernel("fused", CPU) == "fused"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_serves_the_next_step():
    """Fetching it from the system again would take a page fault for every 4 KB."""
    script = (
        "import resource, torch; from viny.config.sections import Compute; from viny.training import device\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def step(): return [torch.ones(1_000_000) for _ in range(40)]\n"
        "device.select_device(Compute(device='cpu')); step(); before = faults(); step(); print(faults() - before)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 4_000  # of 40,000 pages
