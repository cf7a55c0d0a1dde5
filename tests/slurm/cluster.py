"""A private SLURM cluster of several nodes with fake GPUs on one machine, for tests.

    python tests/slurm/cluster.py start FOLDER     # installs SLURM first where it is missing and the user is root
    . FOLDER/environment
    python tests/slurm/cluster.py stop FOLDER

Everything lies below FOLDER: configuration, key, sockets, logs, process ids. Nothing in /etc is touched, all daemons
and jobs are the caller's own, so several clusters can stand side by side. Needs no systemd and no containers.
"""

import argparse
import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
DAEMONS = ("/usr/sbin/slurmctld", "/usr/sbin/slurmd", "/usr/sbin/munged")
COMMANDS = ("srun", "sbatch", "squeue", "scontrol", "scancel", "sinfo", "sacct", "sacctmgr")

SLURM_CONF = """\
ClusterName=viny
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={root}/run/munge.socket
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
PlugStackConfig={root}/etc/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
PriorityType=priority/basic
ReturnToService=2
SlurmdTimeout=10
InactiveLimit=0
KillWait=5
MinJobAge=86400
BatchStartTimeout=10
MessageTimeout=10
SlurmdParameters=config_overrides
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=node[1-{nodes}] Default=YES MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=node[1-{nodes}] PriorityTier=2 MaxTime=INFINITE State=UP
"""
NODE = (
    "NodeName=node{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Sockets=1 CoresPerSocket={cpus} "
    "ThreadsPerCore=1 RealMemory=64000 Gres=gpu:{gpus} State=UNKNOWN\n"
)


class Unavailable(Exception):
    """There is no SLURM here, and it cannot be installed."""


def install() -> None:
    """Install SLURM with apt if it is missing.

    Raises:
        Unavailable: it is missing and the user is not root, there is no apt, or apt fails.
    """
    if all(Path(daemon).exists() for daemon in DAEMONS):
        return
    if os.getuid() != 0 or not shutil.which("apt-get"):
        raise Unavailable(f"SLURM is not installed; as root on Debian or Ubuntu: apt-get install {' '.join(PACKAGES)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", "-qq", *command], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"apt-get {command[0]} failed: {done.stderr.strip()[-300:]}")


class Cluster:
    """A cluster below `root`; keep that path short, since sockets allow about 100 characters."""

    def __init__(self, root: Path):
        self.root = root.resolve()

    @property
    def environment(self) -> dict[str, str]:
        """Environment of commands that use the cluster."""
        # A job step forgets SLURM_CONF, so commands come from a folder of wrappers that set it.
        return {
            **os.environ,
            "SLURM_CONF": str(self.root / "etc/slurm.conf"),
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
        }

    def start(self, nodes: int = 3, cpus: int = 2, gpus: int = 1) -> None:
        """Write the configuration, start the daemons and wait until all nodes are idle.

        Raises:
            RuntimeError: the nodes do not come up; the message has the end of the controller's log.
        """
        for folder in ("etc", "run", "log", "state", "bin", "munge"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)
        (self.root / "munge").chmod(0o700)
        self._configure(nodes, cpus, gpus)
        self._start_munge()
        self._daemon("/usr/sbin/slurmctld", "-c")
        for i in range(1, nodes + 1):
            self.start_node(i)
        try:
            wait_for(lambda: self.count("sinfo", "-h", "-N", "-p", "main", "-t", "idle") == nodes, 20, "nodes")
        except TimeoutError as error:
            raise RuntimeError((self.root / "log/slurmctld.log").read_text()[-2000:]) from error

    def start_node(self, i: int) -> None:
        """Start node `i`, counted from 1."""
        (self.root / f"spool/node{i}").mkdir(parents=True, exist_ok=True)
        self._daemon("/usr/sbin/slurmd", "-N", f"node{i}")

    def crash_node(self, name: str) -> None:
        """Kill a node's daemon and everything that it runs, without a word to the controller."""
        for pid in [self._pid(f"slurmd.{name}"), *self._steps(name)]:
            _kill(pid, signal.SIGKILL)

    def _steps(self, node: str) -> list[int]:
        """The processes that look after a node's jobs, and the jobs' own."""
        log = f"{self.root}/log/slurmd.{node}.log"
        found = [pid for pid in _processes() if log in _open_files(pid) and pid != self._pid(f"slurmd.{node}")]
        tree = _children()
        for pid in found:
            found += tree.get(pid, [])
        return found

    def count(self, *command: str) -> int:
        """Number of lines that a command of the cluster prints."""
        return len(self.run(*command).splitlines())

    def run(self, *command: str) -> str:
        """Output of a command of the cluster."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def stop(self) -> None:
        """Cancel all jobs and stop the daemons of this cluster."""
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            self.run("scancel", "-u", str(os.getuid()))
            with contextlib.suppress(TimeoutError):
                wait_for(lambda: not self.count("squeue", "-h", "-t", "R,CG"), 10, "jobs to end")
        names = sorted(file.stem for file in (self.root / "run").glob("*.pid"))
        for group in ([name for name in names if name != "munged"], ["munged"]):
            pids = [pid for name in group if (pid := self._pid(name))]
            for pid in pids:
                _kill(pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                wait_for(lambda pids=pids: not any(_arguments(pid) for pid in pids), 3, "daemons to end")
            for pid in pids:
                _kill(pid, signal.SIGKILL)
        for node in (self.root / "spool").iterdir():
            for pid in self._steps(node.name):
                _kill(pid, signal.SIGKILL)

    def _configure(self, nodes: int, cpus: int, gpus: int) -> None:
        host, port = socket.gethostname().split(".")[0], free_ports(nodes + 1)
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        conf = SLURM_CONF.format(host=host, port=port, user=user, root=self.root, nodes=nodes)
        head, _, partitions = conf.partition("PartitionName")
        gres = ""
        for i in range(1, nodes + 1):
            head += NODE.format(i=i, host=host, port=port + i, cpus=cpus, gpus=gpus)
            devices = self.root / f"dev/node{i}"
            devices.mkdir(parents=True, exist_ok=True)
            for gpu in range(gpus):  # a device file must be there for SLURM to believe in a GPU
                (devices / f"gpu{gpu}").unlink(missing_ok=True)
                (devices / f"gpu{gpu}").symlink_to("/dev/null")
            gres += f"NodeName=node{i} Name=gpu File={devices}/gpu[0-{gpus - 1}]\n"
        (self.root / "etc/slurm.conf").write_text(f"{head}PartitionName{partitions}")
        (self.root / "etc/gres.conf").write_text(gres)
        (self.root / "etc/plugstack.conf").write_text("")
        for name in COMMANDS:
            if real := shutil.which(name, path="/usr/bin:/usr/local/bin"):
                wrapper = self.root / "bin" / name
                wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.root}/etc/slurm.conf exec {real} "$@"\n')
                wrapper.chmod(0o755)
        (self.root / "environment").write_text(
            f"export SLURM_CONF={self.root}/etc/slurm.conf\nexport PATH={self.root}/bin:$PATH\n"
        )

    def _start_munge(self) -> None:
        key = self.root / "munge/munge.key"
        key.unlink(missing_ok=True)
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        self._daemon(
            *("/usr/sbin/munged", "--force", "--num-threads=2", f"--key-file={key}"),
            *(f"--socket={self.root}/run/munge.socket", f"--pid-file={self.root}/run/munged.pid"),
            *(f"--log-file={self.root}/munge/munged.log", f"--seed-file={self.root}/munge/munged.seed"),
        )

    def _daemon(self, *command: str) -> None:
        # Daemons go to the background by themselves; they must not keep the caller's output open.
        environment = {key: value for key, value in self.environment.items() if not key.startswith("PYTEST")}
        log = (self.root / "log/start.log").open("ab")
        with log:
            subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)

    def _pid(self, name: str) -> int | None:
        """Process id of a daemon of this cluster, None if it is gone or the id has another owner by now."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.root / f"run/{name}.pid").read_text())
            if any("slurm" in part or "munged" in part for part in _arguments(pid)[:1]):
                return pid
        return None


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until `condition()` holds; raises TimeoutError after `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)


def free_ports(count: int) -> int:
    """First of `count` free ports in a row, below those that the system gives to clients (from 32768 on)."""
    while True:
        first = random.randrange(20000, 32000, 50)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("0.0.0.0", port))
            return first


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _arguments(pid: int | None) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").strip("\0").split("\0")
    return []


def _open_files(pid: int) -> set[str]:
    with contextlib.suppress(OSError):
        return {str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()}
    return set()


def _children() -> dict[int, list[int]]:
    """Processes by parent."""
    found: dict[int, list[int]] = {}
    for pid in _processes():
        with contextlib.suppress(OSError):
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found.setdefault(int(after_name[1]), []).append(pid)
    return found


def _kill(pid: int | None, signum: int) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)


def main() -> int:
    """Start or stop a cluster from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    cluster = Cluster(args.folder)
    try:
        if args.action == "stop":
            cluster.stop()
        else:
            install()
            cluster.start()
            print(cluster.run("sinfo", "-N"), end="")
    except Unavailable as error:
        print(f"no cluster: {error}", file=sys.stderr)
        return 77
    return 0


if __name__ == "__main__":
    sys.exit(main())
