"""Jobs forked from a warm process behave as if they had been started by themselves."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from test_kill import KILLS, fork, wait
from tiny import Result

from viny.stages import warm

SRC = Path(__file__).parents[2] / "src"

# A stand-in for the stages, light to load: what a job sees and does can be observed.
STAGE = """
import json, os, signal, sys, time
from pathlib import Path

def main(argv):
    out = Path(argv[0])
    signal.signal(signal.SIGTERM, lambda *_: (out.write_text("stopped"), sys.exit(143)))
    out.write_text(json.dumps({"pid": os.getpid(), "cwd": os.getcwd(), "mark": os.environ.get("MARK")}))
    print("said by the job", flush=True)
    if argv[1] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if argv[1] == "crash":
        raise RuntimeError("a bug")
    if argv[1] == "wait":
        time.sleep(30)
    return int(argv[1])
"""
SERVER = """
import sys, types
from pathlib import Path
for name in ("pretrain", "intermediate", "finetune", "geometry"):
    module = types.ModuleType(f"viny.stages.{name}")
    exec(compile(Path(sys.argv[2]).read_text(), sys.argv[2], "exec"), module.__dict__)
    sys.modules[module.__name__] = module
run = types.ModuleType("viny.stages.run")
sys.modules["viny.stages.run"] = run
import viny.stages
viny.stages.run = run
sys.modules["torch._dynamo"] = types.ModuleType("torch._dynamo")
sys.modules["torch"] = types.ModuleType("torch")
from viny.stages import warm
warm.serve(warm._address(), idle_seconds=float(sys.argv[1]))
"""


@contextlib.contextmanager
def serving(tmp_path, src):
    """A server of the stand-in stage, in a folder of its own, with the code in `src`."""
    stage, script = tmp_path / "stage.py", tmp_path / "server.py"
    stage.write_text(STAGE)
    script.write_text(SERVER)
    environment = {**os.environ, "PYTHONPATH": str(src), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, script, "90", stage], env=environment)
    environment["SERVER"] = str(process.pid)
    folder = tmp_path / f"viny-{os.getuid()}"
    try:
        wait_for(lambda: list(folder.glob("*.sock")))
        yield environment
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def server(tmp_path):
    """A server of the stand-in stage."""
    with serving(tmp_path, SRC) as environment:
        yield environment


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def client(environment, *argv, **kwargs):
    command = [sys.executable, "-m", "viny.stages.warm", "finetune", *map(str, argv)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


def is_running(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    return False


def seen(path):
    wait_for(lambda: path.exists() and path.read_text().endswith("}"))
    return json.loads(path.read_text())


def test_a_job_has_the_callers_folder_environment_output_and_exit_code(server, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    one = client({**server, "MARK": "here"}, tmp_path / "one", 7, cwd=folder)
    said, _ = one.communicate(timeout=90)
    assert (one.returncode, said) == (7, "said by the job\n")
    assert seen(tmp_path / "one") == {"pid": seen(tmp_path / "one")["pid"], "cwd": str(folder), "mark": "here"}
    two = client(server, tmp_path / "two", 0)
    assert two.wait(90) == 0
    assert seen(tmp_path / "two")["pid"] != seen(tmp_path / "one")["pid"]
    assert seen(tmp_path / "two")["mark"] is None


def test_a_job_fails_alone(server, tmp_path):
    died = client(server, tmp_path / "died", "die")
    assert "died" in died.communicate(timeout=90)[1]
    assert died.returncode == 1
    crashed = client(server, tmp_path / "crashed", "crash")
    assert "RuntimeError: a bug" in crashed.communicate(timeout=90)[1]
    assert crashed.returncode == 1
    assert client(server, tmp_path / "fine", 0).wait(90) == 0


def test_signals_reach_the_job(server, tmp_path):
    job = client(server, tmp_path / "job", "wait")
    seen(tmp_path / "job")
    job.send_signal(signal.SIGTERM)
    assert job.wait(90) == 143
    assert (tmp_path / "job").read_text() == "stopped"


def test_a_job_ends_with_the_command_that_asked_for_it(server, tmp_path):
    job = client(server, tmp_path / "job", "wait")
    pid = seen(tmp_path / "job")["pid"]
    job.kill()
    job.wait()
    wait_for(lambda: not is_running(pid))
    assert (tmp_path / "job").read_text() == "stopped"


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("sent", [b"", b"half a request"])
def test_a_command_killed_while_it_asks_leaves_no_job(server, tmp_path, sent):
    [path] = tmp_path.glob("viny-*/*.sock")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        wait_for(lambda: children(server["SERVER"]))
        [job] = children(server["SERVER"])
        if sent:
            socket.send_fds(connection, [(1000).to_bytes(8)], [0, 1, 2])
            connection.sendall(sent)
    wait_for(lambda: not is_running(job))
    assert client(server, tmp_path / "next", 0).wait(90) == 0


def test_kills_of_command_job_and_server_at_random_instants(stages, monkeypatch):
    """A real stage; the server is a copy of this process, which has everything loaded."""
    changes = {"steps": 16, "batch_size": 8, "save_every": 0}
    output = stages.folder / "whole"
    began = time.monotonic()
    assert stages.main("finetune", output, **changes) == 0
    duration, whole = time.monotonic() - began, Result(output)
    home = tempfile.mkdtemp(prefix="warm-")
    monkeypatch.setattr(tempfile, "tempdir", home)
    path, chance = warm._address(), random.Random(0)

    def start_server():
        path.unlink(missing_ok=True)
        pid = fork(lambda: warm.serve(path))
        wait_for(path.exists)
        return pid

    def command():
        stage, line = stages.arguments("finetune", output, **changes)

        def ask():
            try:
                return warm.main([stage, *line])
            except SystemExit as end:  # the server was gone, and the stage ran without it
                return end.code

        return fork(ask)

    server, kills = start_server(), 0
    try:
        for number, who in enumerate(["command", "job", "server"] * max(KILLS // 5, 1)):
            output = stages.folder / str(number)
            asking = command()
            time.sleep(chance.uniform(0.03, duration))
            victim = {"command": [asking], "job": children(server), "server": [server]}[who]
            for pid in victim:
                os.kill(pid, signal.SIGKILL)
            code = wait(asking)
            if who == "server":
                wait(server)
                server = start_server()
            assert code in {"command": (0, -signal.SIGKILL), "job": (0, 1), "server": (0,)}[who]
            kills += bool(code) or who == "server"
            if code:
                assert wait(command()) == 0
            assert Result(output).repeatable == whole.repeatable, (number, who)
        print(f"{kills} kills in {number + 1} runs")
    finally:
        os.kill(server, signal.SIGKILL)
        wait(server)
        shutil.rmtree(home)


def test_the_server_ends_when_code_is_edited_whatever_the_clock_says(tmp_path):
    src = tmp_path / "src"
    shutil.copytree(SRC / "viny", src / "viny")
    code, future = src / "viny" / "stages" / "run.py", time.time() + 1e6
    os.utime(code, (future, future))
    with serving(tmp_path, src) as server:
        assert client(server, tmp_path / "one", 0).wait(90) == 0
        assert is_running(int(server["SERVER"]))
        code.write_text(code.read_text() + "# edited\n")
        wait_for(lambda: not is_running(int(server["SERVER"])))


def test_without_a_server_the_stage_runs_by_itself(tmp_path):
    """The folder of the sockets cannot be trusted here, so none is used."""
    folder = tmp_path / f"viny-{os.getuid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    environment = {**os.environ, "PYTHONPATH": str(SRC), "TMPDIR": str(tmp_path)}
    job = client(environment, "--help")
    assert "--images" in job.communicate(timeout=120)[0]
    assert job.returncode == 0
    assert not list(folder.iterdir())
