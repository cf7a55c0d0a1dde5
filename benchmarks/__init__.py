"""How fast viny is, beside others doing the same work in the same run: `python -m benchmarks`."""
