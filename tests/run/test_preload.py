"""Jobs forked from a process that has torch loaded behave as if they had been started by themselves."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from processes import fork, run, wait
from test_kill import KILLS, LONG, done, line, undisturbed

from viny import preload
from viny import run as viny_run

SRC = Path(__file__).parents[2] / "src"
ALONE = 99  # exit code of a client whose job did not start in the server

# Stand-ins, light to load: what a job sees and does can be observed.
SERVER = """
import json, os, signal, socket, sys, time
from pathlib import Path
from viny import preload

def command(argv):
    out = Path(argv[0])
    if argv[1] != "deaf":
        signal.signal(signal.SIGTERM, lambda *_: (out.write_text("stopped"), sys.exit(143)))
    out.write_text(json.dumps({"pid": os.getpid(), "cwd": os.getcwd(), "mark": os.environ.get("MARK")}))
    print("said by the job", flush=True)
    if argv[1] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if argv[1] == "crash":
        raise RuntimeError("a bug")
    if argv[1] in ("wait", "deaf"):
        time.sleep(30)
    return int(argv[1])

path = preload._address()
listening = socket.socket(socket.AF_UNIX)
listening.bind(str(path))
listening.listen()
preload.serve(listening, path, lambda: command, idle=float(sys.argv[1]))
"""
CLIENT = f"""
import sys
from viny import logs, preload
logs.setup()
code = preload.ask(sys.argv[1:])
sys.exit({ALONE} if code is None else code)
"""


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A copy of the code, which nobody edits meanwhile: the server would notice."""
    return Path(shutil.copytree(SRC / "viny", tmp_path_factory.mktemp("source") / "viny")).parent


@pytest.fixture
def home(monkeypatch, source, tmp_path):
    """A short folder for the socket of this test; this process is the driver."""
    folder = tempfile.mkdtemp(prefix="pre-", dir="/tmp")
    monkeypatch.setattr(tempfile, "tempdir", folder)
    monkeypatch.setenv("TMPDIR", folder)
    monkeypatch.setenv("PYTHONPATH", str(source))
    monkeypatch.setenv(preload.DRIVER, preload.driver_id())
    yield Path(folder)
    shutil.rmtree(folder)


@contextlib.contextmanager
def serving(home, idle=90.0, **environment):
    """A server of the stand-in command."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(idle)], env={**os.environ, **environment})
    try:
        wait_for(lambda: list(home.glob("*/*.sock")))
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def server(home):
    with serving(home) as process:
        yield process


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def client(*argv, environment=None, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, *map(str, argv)],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def is_running(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    return False


def seen(path):
    wait_for(lambda: path.exists() and path.read_text().endswith("}"))
    return json.loads(path.read_text())


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_job_has_the_callers_folder_environment_output_and_exit_code(server, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    one = client(tmp_path / "one", 7, cwd=folder, environment={"MARK": "here"})
    said, _ = one.communicate(timeout=60)
    assert (one.returncode, said) == (7, "said by the job\n")
    assert seen(tmp_path / "one") == {"pid": seen(tmp_path / "one")["pid"], "cwd": str(folder), "mark": "here"}
    assert client(tmp_path / "two", 0).wait(60) == 0
    assert seen(tmp_path / "two")["pid"] != seen(tmp_path / "one")["pid"]
    assert seen(tmp_path / "two")["mark"] is None


def test_a_job_fails_alone(server, tmp_path):
    died = client(tmp_path / "died", "die")
    assert "ended without an exit code" in died.communicate(timeout=60)[1]
    assert died.returncode == 1
    crashed = client(tmp_path / "crashed", "crash")
    assert "RuntimeError: a bug" in crashed.communicate(timeout=60)[1]
    assert crashed.returncode == 1
    assert client(tmp_path / "fine", 0).wait(60) == 0


@pytest.mark.parametrize("kind", ["wait", "deaf"])
def test_signals_reach_the_job(server, tmp_path, kind):
    job = client(tmp_path / "job", kind)
    seen(tmp_path / "job")
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == 143
    assert ((tmp_path / "job").read_text() == "stopped") == (kind == "wait")


def test_a_job_ends_with_the_command_that_asked_for_it(server, tmp_path):
    job = client(tmp_path / "job", "wait")
    pid = seen(tmp_path / "job")["pid"]
    job.kill()
    job.wait()
    wait_for(lambda: not is_running(pid))
    assert (tmp_path / "job").read_text() == "stopped"


@pytest.mark.parametrize("sent", [b"", b"?", bytes([signal.SIGTERM])])
def test_a_command_killed_while_it_asks_leaves_no_job(home, server, tmp_path, sent):
    [path] = home.glob("viny-*/*.sock")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        wait_for(lambda: children(server.pid))
        [job] = children(server.pid)
        connection.sendall(sent)
    wait_for(lambda: not is_running(job))
    assert client(tmp_path / "next", 0).wait(60) == 0


def ignore_other_signals():
    """Hang-ups, which a test run under nohup ignores already."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    signal.signal(signal.SIGHUP, signal.SIG_DFL if ignored else signal.SIG_IGN)


CONTEXTS = {
    "nice": lambda: os.nice(5),
    "umask": lambda: os.umask(0o027),
    "affinity": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    "open files": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)),
    "memory": lambda: resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40)),
    "group": lambda: os.setgroups([12345]),
    "ignored signals": ignore_other_signals,
}


@pytest.mark.parametrize("name", CONTEXTS)
def test_no_job_runs_in_the_context_of_another_caller(server, tmp_path, name):
    if name == "affinity" and len(os.sched_getaffinity(0)) == 1:
        pytest.skip("one processor")
    if name == "group" and os.getuid():
        pytest.skip("only root may leave groups")
    other = client(tmp_path / "other", 0, preexec_fn=CONTEXTS[name])
    assert other.communicate(timeout=60) == ("", "")
    assert other.returncode == ALONE
    assert not (tmp_path / "other").exists()
    assert client(tmp_path / "same", 0).wait(60) == 0, "the server serves on"


def test_jobs_of_a_script_in_the_background_are_served(home, tmp_path):
    """A shell lets them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with serving(home):
            assert client(tmp_path / "out", 0).wait(60) == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_variables_that_libraries_read_at_load_are_the_same(server, tmp_path):
    assert client(tmp_path / "out", 0, environment={"OMP_NUM_THREADS": "7"}).wait(60) == ALONE


def test_without_a_driver_nothing_is_started(home, monkeypatch):
    gone = subprocess.Popen(["sleep", "60"])
    host, _, started = json.loads(preload.driver_id())
    theirs = json.dumps([host, gone.pid, started + 3600])
    try:
        for driver in ("", "nonsense", "[]", json.dumps(["elsewhere", os.getpid(), started]), theirs):
            monkeypatch.setenv(preload.DRIVER, driver)
            assert preload.ask(["x"]) is None
    finally:
        gone.kill()
        gone.wait()
    assert not list(home.iterdir())


def test_the_server_ends_with_its_driver(home, tmp_path):
    script = "from viny import preload; print(preload.driver_id(), flush=True); input()"
    words = [sys.executable, "-c", script]
    driver = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    name = {preload.DRIVER: driver.stdout.readline().strip()}
    with serving(home, **name) as server:
        assert client(tmp_path / "out", 0, environment=name).wait(60) == 0
        driver.kill()
        driver.communicate()
        assert server.wait(30) == 0
    assert not list(home.glob("*/*"))


def test_the_server_ends_after_a_while_without_jobs(home, tmp_path):
    with serving(home, idle=0.5) as server:
        assert server.wait(30) == 0
    assert not list(home.glob("*/*"))


def test_the_server_ends_when_code_is_edited_whatever_the_clock_says(home, tmp_path):
    src = tmp_path / "src"
    shutil.copytree(SRC / "viny", src / "viny")
    code, future = src / "viny" / "run.py", time.time() + 1e6
    os.utime(code, (future, future))
    copied = {"PYTHONPATH": str(src)}
    with serving(home, **copied) as server:
        assert client(tmp_path / "one", 0, environment=copied).wait(60) == 0
        code.write_text(code.read_text() + "# edited\n")
        assert server.wait(30) == 0


def test_a_start_that_fails_is_said_once_and_not_repeated(home, tmp_path):
    broken = tmp_path / "broken" / "torch"
    broken.mkdir(parents=True)
    broken.joinpath("__init__.py").write_text(f"open({str(tmp_path / 'starts')!r}, 'a').write('x')\n1 / 0\n")
    environment = {"PYTHONPATH": f"{broken.parent}:{os.environ['PYTHONPATH']}"}
    together = [client("x", environment=environment) for _ in range(3)]
    together.append(client("x", environment=environment))
    said = [one.communicate(timeout=60)[1] for one in together]
    assert {one.returncode for one in together} == {ALONE}
    assert sum("the preload server failed" in text for text in said) == 1
    assert client("x", environment=environment).communicate(timeout=60) == ("", "")
    assert (tmp_path / "starts").read_text() == "x"
    assert "ZeroDivisionError" in next(home.glob("*/*.log")).read_text()


def test_in_a_temporary_folder_with_a_long_name_nothing_is_started(home, monkeypatch):
    folder = home / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert preload.ask(["x"]) is None
    assert not [path for path in folder.rglob("*") if not path.is_dir()]


def test_a_folder_that_others_can_enter_is_not_used(home):
    folder = home / f"viny-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    address = preload._address()
    assert address is None or address.parent != folder


def test_the_server_is_started_by_the_first_job_and_those_at_once_wait_for_it(home, jobs):
    """The real one, through the command line."""
    command = [sys.executable, "-m", "viny", "run"]
    lines = [jobs.arguments("finetune", name, steps=1, milestones=[]) for name in "abc"]
    together = [subprocess.Popen([*command, *line], stderr=subprocess.PIPE, text=True) for line in lines]
    said = [one.communicate(timeout=120)[1] for one in together]
    assert [one.returncode for one in together] == [0, 0, 0], said
    [path] = home.glob("*/*.sock")
    results = [done(jobs, name, steps=1, milestones=[]) for name in "abc"]
    assert len({result.weights for result in results}) == 1
    for result in results:  # what a fork calls itself
        assert result.document["provenance"]["command"][:2] == ["viny", "run"]
    wrong = subprocess.run([*command, "nonsense", *lines[0][1:]], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr.count("viny: error: ")) == (4, 1)
    [server] = [pid for pid in (int(p.name) for p in Path("/proc").glob("[0-9]*")) if is_server(pid, path)]
    os.kill(server, signal.SIGTERM)


def is_server(pid, path):
    with contextlib.suppress(OSError):
        return str(path) in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return False


def test_images_are_decoded_without_torch_while_the_server_loads_it(home, jobs, tmp_path):
    store = f"stores/{jobs.job('finetune').store.place}"
    argv = [*jobs.command(store), "--config", f"stores={tmp_path / 'stores'}", "--workers", "1"]
    decode = (
        "import os, sys; from viny import preload; os.environ[preload.DRIVER] = preload.driver_id();"
        "code = preload.main(sys.argv[1:]); loaded = [name for name in sys.modules if name == 'torch'];"
        "print(code, loaded, preload._address().exists())"
    )
    said = subprocess.run([sys.executable, "-c", decode, *argv], cwd=tmp_path, capture_output=True, text=True)
    assert said.stdout == "0 [] True\n", said.stderr
    assert list(tmp_path.glob(f"{store}/*"))


def test_kills_of_command_job_and_server_at_random_instants(jobs, home, monkeypatch):
    """A real stage; the server is a copy of this process, which has everything loaded."""
    monkeypatch.setattr(preload, "_code_dates", dict)
    whole = undisturbed(jobs, **LONG)
    began = time.monotonic()
    assert run(line(jobs, "timed", **LONG)) == 0
    duration = time.monotonic() - began
    chance, path = random.Random(0), preload._address()

    def start_server():
        path.unlink(missing_ok=True)
        path.with_suffix(".failed").unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        pid = fork(lambda: preload.serve(listening, path, lambda: viny_run.main) or 0)
        listening.close()
        return pid

    def command(name):
        return fork(lambda: preload.main(line(jobs, name, **LONG)))

    server, kills = start_server(), 0
    try:
        for number, who in enumerate(["command", "job", "server"] * max(KILLS // 5, 1)):
            asking = command(str(number))
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
                assert wait(command(str(number))) == 0
            assert done(jobs, str(number), **LONG).repeatable == whole.repeatable, (number, who)
        print(f"{kills} kills in {number + 1} runs")
    finally:
        os.kill(server, signal.SIGKILL)
        wait(server)
