"""Snakemake that looks at its SLURM jobs every second; the plugin waits ten seconds longer after each idle look."""

import asyncio
import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

between_checks = RemoteExecutor.next_seconds_between_status_checks


async def sleep(self) -> None:
    await asyncio.sleep(min(1, between_checks.fget(self)))


RemoteExecutor.next_seconds_between_status_checks = property(
    lambda self: min(1, between_checks.fget(self)), between_checks.fset
)
RemoteExecutor.sleep = sleep

if __name__ == "__main__":
    sys.exit(main())
