"""The real Snakemake on a toy study: what is run once, what is run again, and what is not."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from random import Random

import pytest
import yaml
from checkout import TOY, Workflow, altered

from viny.config import load

CELL = "finetune/pretrain=24/intermediate=cls_intel/downstream=8/seed=1"


@contextlib.contextmanager
def changed(path, change):
    """A file with other content for a while."""
    before, stat = path.read_text(), path.stat()
    path.write_text(change(before))
    try:
        yield
    finally:
        path.write_text(before)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@contextlib.contextmanager
def changed_bytes(path, change):
    """A file of bytes with other content for a while."""
    before = path.read_bytes()
    path.write_bytes(change(before))
    try:
        yield
    finally:
        path.write_bytes(before)


@contextlib.contextmanager
def gone(path):
    """A file that is missing for a while."""
    path.rename(path.with_suffix(".away"))
    try:
        yield
    finally:
        path.with_suffix(".away").rename(path)


def test_every_declared_result_is_there(toy):
    assert len(toy.results("pretrain/*/*/encoder.safetensors")) == 1
    assert len(toy.results("intermediate/*/*/*/encoder.safetensors")) == 1
    cells = toy.results("finetune/*/*/*/*/metrics.json")
    assert len(cells) == 3
    for cell in cells:
        result = json.loads(cell.read_text())
        assert 0 < result["metrics"]["miou"] < 1
        place = [f"{axis}={result['coordinates'][axis]}" for axis in ("pretrain", "intermediate", "downstream", "seed")]
        assert cell.parent.parts[-4:] == tuple(place)
        assert {path.name for path in cell.parent.iterdir()} >= {
            "model.safetensors",
            "metrics.json",
            "history.jsonl",
            "examples.npz",
            "confusions.npz",
        }


def test_it_leaves_logs_by_study_and_job(toy):
    logs = toy.work / "logs"
    assert (logs / "toy" / f"{CELL}.log").read_text().strip()
    assert {path.name for path in (logs / "toy").iterdir()} >= {"finetune", "intermediate", "pretrain", "analyze.log"}
    assert len(list((logs / "stores").rglob("*.log"))) == 3


def test_the_study_is_kept_as_it_was_run(toy):
    kept = toy.work / "results/toy/study.json"
    assert load(kept) == load(TOY)


def test_nothing_is_written_outside_the_working_directory(toy):
    assert {path.name for path in toy.checkout.iterdir()} <= {
        "src", "workflow", "profiles", "envs", "Snakefile", "config.yaml",
    }  # fmt: skip


def test_what_a_killed_snakemake_left_is_removed_at_the_next_start(toy):
    left = toy.work / "results/toy/.state/finetune-123"
    (left / "done").mkdir(parents=True)
    assert toy.run(config=TOY).returncode == 0
    assert not left.exists()


def test_a_second_run_does_nothing(toy):
    done = toy.run(config=TOY)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def test_what_is_shown_of_a_run_is_short_and_names_the_page(toy):
    shown = toy.first.stderr.splitlines()
    assert shown[1].startswith("toy: 9 jobs to do (3 decode, ")
    assert [line.split("]")[0] for line in shown if line.startswith("[")] == [f"[{n}/9" for n in range(1, 10)]
    assert "All results on one page: results/toy/overview.html" in shown
    assert len(shown) <= 16
    assert max(map(len, shown)) < 200
    assert toy.first.stdout == ""


def test_snakemakes_own_output_comes_back_with_a_flag(toy):
    with gone(toy.work / "results" / "toy" / "overview.html"):
        done = toy.run("--printshellcmds", "--dry-run", config=TOY)
    assert "rule analyze:" in done.stdout + done.stderr


def test_a_dry_run_counts_jobs_by_rule_and_lists_no_inputs(toy):
    done = toy.run("--dry-run", config=altered(grid__seeds=[1, 2]))
    said = done.stdout + done.stderr
    assert len(said.splitlines()) < 25
    assert "finetune " in said
    assert "metrics.json" not in said


def test_a_mistake_in_the_study_file_is_said_once(toy):
    done = toy.run(config=altered(finetune__epocs=3))
    assert done.returncode == 1
    assert done.stderr.count("finetune.epocs: unknown key") == 1
    assert len(done.stderr.splitlines()) < 6


PLANS = {
    "one more downstream size": ({"grid__downstream": [8, 16]}, {"finetune": 3}),
    "one more seed": ({"grid__seeds": [1, 2]}, {"pretrain": 1, "intermediate": 1, "finetune": 3}),
    "one more pre-training size": ({"grid__pretrain": [0, 24, 40]}, {"pretrain": 1, "intermediate": 1, "finetune": 2}),
    "the cell that was left out": ({"grid__exclude": []}, {"intermediate": 1, "finetune": 1}),
    "fine-tuning setting": ({"finetune__learning_rate": 1.0e-3}, {"finetune": 3}),
    "intermediate setting": ({"intermediate__cls_intel__mixup": 0.2}, {"intermediate": 1, "finetune": 1}),
    "setting of a task that is not used": ({"intermediate__cls_pets__mixup": 0.2}, {}),
    "pre-training setting": ({"pretrain__mask_ratio": 0.6}, {"pretrain": 1, "intermediate": 1, "finetune": 2}),
    "model": ({"model__depth": 2}, {"pretrain": 1, "intermediate": 1, "finetune": 3}),
    "the same number in another form": ({"finetune__epochs": 2.0}, {}),
    "a default written out": ({"finetune__weight_decay": 1.0e-4}, {}),
    "how to compute": (
        {"compute": {"device": "cpu", "threads": 2, "attention": "fused", "compile": True, "matmul_precision": "high"}},
        {},
    ),
    "where images are and what to do about bad ones": ({"data__root": "elsewhere", "data__bad_images": "skip"}, {}),
    "a variant of fine-tuning": ({"variants": {"raw": {"finetune": {"normalize": False}}}}, {"finetune": 3}),
    "a variant of pre-training": (
        {"variants": {"more": {"pretrain": {"mask_ratio": 0.6}}}},
        {"pretrain": 1, "intermediate": 1, "finetune": 2},
    ),
    "a variant of how results are summarized": ({"variants": {"image": {"analysis": {"miou": "per_image"}}}}, {}),
    "how results are summarized": ({"analysis": {"confidence": 0.9}}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_a_change_of_the_config_runs_what_it_concerns(toy, name):
    change, planned = PLANS[name]
    assert toy.training(config=altered(**change)) == planned


def test_a_missing_result_is_made_again_and_no_other(toy):
    with gone(toy.work / "results" / "toy" / CELL / "metrics.json"):
        assert toy.training(config=TOY) == {"finetune": 1}


def test_weights_may_be_deleted_once_the_results_are_there(toy):
    [encoder] = toy.results("pretrain/*/*/encoder.safetensors")
    with gone(encoder), gone(toy.work / "results" / "toy" / CELL / "model.safetensors"):
        assert toy.training(config=TOY) == {}


def test_a_new_date_alone_is_no_reason(toy):
    [encoder] = toy.results("pretrain/*/*/encoder.safetensors")
    encoder.touch()
    assert toy.training(config=TOY) == {}


def test_dates_are_no_reason(toy):
    paths = [
        path for pattern in ("stores/**/*", "results/toy/**/*") for path in toy.work.glob(pattern) if path.is_file()
    ]
    assert len(paths) > 20
    before = {path: path.stat().st_mtime_ns for path in paths}
    random = Random(0)
    for path in paths:
        os.utime(path, (time.time() + random.uniform(-1e6, 1e6),) * 2)
    assert toy.training(config=TOY) == {}
    for path, date in before.items():
        os.utime(path, ns=(date, date))


NEW_SEED = {"pretrain": 1, "intermediate": 1, "finetune": 3}


def test_files_made_while_the_clock_was_ahead_are_built_upon(toy):
    then = time.time() + 1e8
    for path in (
        toy.work / "results/toy/study.json",
        *toy.work.glob("stores/*/*/manifest.json"),
        *toy.results("**/*.*"),
    ):
        os.utime(path, (then, then))
    with gone(toy.work / "results" / "toy" / CELL / "metrics.json"):
        done = toy.run(config=TOY)
        assert done.returncode == 0, done.stdout + done.stderr
        (toy.work / "results" / "toy" / CELL / "metrics.json").unlink()


def test_finished_runs_stay_when_their_images_are_gone(toy):
    with gone(toy.work / "stores"):
        assert toy.training(config=TOY) == {}
        assert toy.plan(config=altered(grid__seeds=[1, 2])) | NEW_SEED == toy.plan(config=altered(grid__seeds=[1, 2]))
        assert toy.training(config=altered(grid__seeds=[1, 2])) == NEW_SEED


def test_finished_runs_stay_when_stores_are_elsewhere(toy):
    assert toy.training(config=altered(stores="elsewhere")) == {}
    assert toy.training(config=altered(stores="elsewhere", grid__seeds=[1, 2])) == NEW_SEED


def test_finished_runs_stay_when_their_encoder_is_made_again(toy):
    [encoder] = toy.results("pretrain/*/*/encoder.safetensors")
    with gone(encoder):
        assert toy.training(config=altered(grid__downstream=[8, 16])) == {"pretrain": 1, "finetune": 3}


def test_what_is_recorded_decides_without_snakemakes_memory(toy):
    with gone(toy.work / ".snakemake"):
        assert toy.training(config=TOY) == {}
        assert toy.training(config=altered(finetune__learning_rate=1.0e-3)) == {"finetune": 3}
        with gone(toy.work / "results/toy" / CELL / "metrics.json"):
            assert toy.training(config=TOY) == {"finetune": 1}
        shutil.rmtree(toy.work / ".snakemake")


def test_a_copy_of_the_results_is_taken_as_it_is(toy):
    copy = Workflow(toy.work.parent / "copied", checkout=toy.checkout)
    shutil.copytree(toy.work / "results", copy.work / "results", copy_function=shutil.copyfile)
    assert copy.training(config=TOY) == {}


def test_results_under_another_name_of_the_study_are_noticed(toy):
    shutil.copytree(toy.work / "results/toy", toy.work / "results/renamed")
    assert toy.training(config=altered(study="renamed")) == {"pretrain": 1, "intermediate": 1, "finetune": 3}
    shutil.rmtree(toy.work / "results/renamed")


def test_other_images_are_noticed(toy):
    [manifest] = toy.work.glob("stores/pets-*/*/digests.u64")
    with changed_bytes(manifest, lambda content: bytes(len(content))):
        assert toy.training(config=TOY) == {"finetune": 3}


def replaced(old, new):
    def replace(code):
        assert old in code
        return code.replace(old, new)

    return replace


def test_a_change_of_code_runs_the_stages_that_use_it(toy):
    with changed(toy.checkout / "src/viny/tasks/segmentation.py", lambda code: code + "\nADDED = 1\n"):
        assert toy.training(config=TOY) == {"finetune": 3}
    with changed(toy.checkout / "src/viny/datasets/decode.py", replaced("BICUBIC", "BILINEAR")):
        assert toy.training(config=TOY) == {"pretrain": 1, "intermediate": 1, "finetune": 3}


def test_words_are_no_change_of_code(toy):
    path = toy.checkout / "src/viny/training/loop.py"
    with changed(path, lambda code: "# A comment.\n" + replaced("lower learning_rate", "reduce learning_rate")(code)):
        assert toy.training(config=TOY) == {}


def test_the_environment_file_is_no_reason_where_it_is_not_used(toy):
    with changed(toy.checkout / "envs/viny.yaml", lambda text: text + "      - einops\n"):
        assert toy.training(config=TOY) == {}


def test_a_study_of_images_on_disk_is_run_to_the_report(toy):
    # The generated images serve as real ones.
    root = toy.work / "images"
    root.mkdir()
    for name in ("imagenet", "intel", "oxford-iiit-pet"):
        [folder] = toy.work.glob(f"resources/procedural/*/{name}")
        (root / name).symlink_to(folder)
    done = toy.run(config=altered(study="real", data__procedural=None, data__root=str(root), stores="of-real"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "procedural" not in (toy.work / "results/real/overview.html").read_text()
    assert "procedural" in (toy.work / "results/toy/overview.html").read_text()


def test_variants_run_beside_their_study(toy):
    changes = {
        "adam": {"intermediate": {"cls_intel": {"optimizer": "adam"}}},
        "raw": {
            "finetune": {"normalize": False},
            "grid": {"exclude": [{"pretrain": 24}, {"intermediate": "cls_intel"}]},
        },
    }
    config = altered(study="varied", variants=changes)
    done = toy.run(config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = toy.work / "results" / "varied"
    own = sorted(str(path.parent.relative_to(folder)) for path in folder.glob("variants/**/metrics.json"))
    assert own == [
        "variants/adam/finetune/pretrain=24/intermediate=cls_intel/downstream=8/seed=1",
        "variants/adam/intermediate/pretrain=24/intermediate=cls_intel/seed=1",
        "variants/raw/finetune/pretrain=0/intermediate=none/downstream=8/seed=1",
    ]
    assert json.loads((folder / own[0] / "metrics.json").read_text())["coordinates"]["variant"] == "adam"
    assert "equal in every run" in (folder / "tables/variants.md").read_text()  # Adam and AdamW without weight decay
    assert "What each variant changes" in (folder / "overview.html").read_text()
    assert "Nothing to be done" in toy.run(config=config).stderr
    config["variants"]["raw"]["finetune"]["learning_rate"] = 1.0e-3
    assert toy.training(config=config) == {"finetune": 1}
    with gone(folder / own[2] / "metrics.json"):
        assert toy.run("partial", config=config | {"variants": changes}).returncode == 0
        assert "1 cells cannot be compared yet" in (folder / "partial/tables/variants.md").read_text()


def test_a_failed_job_is_explained_and_the_other_cells_finish(toy):
    # The generated pets serve as real ones; ImageNet and Intel are not there.
    [pets] = toy.work.glob("resources/procedural/*/oxford-iiit-pet")
    config = altered(
        study="broken",
        data__procedural=None,
        data__root=str(pets.parent),
        data__sets={"imagenet": {"images": "nowhere"}},
    )
    config["grid"] |= {"intermediate": ["none"], "exclude": []}
    done = toy.run(config=config)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert said.count("where the data set imagenet is expected") == 1
    assert "nowhere" in said
    [log] = re.findall("  log: (logs/stores/imagenet-.*)", said)
    assert (toy.work / log).exists()
    assert "1 job failed, 1 of 3 runs done; once that is fixed, the same command carries on:\n" in said
    assert said.count(log) == 2  # where it fails, and at the end
    assert "CalledProcessError" not in said
    assert "Traceback" not in said
    assert len(list(toy.work.glob("results/broken/finetune/pretrain=0/*/*/*/metrics.json"))) == 1
    assert not list(toy.work.glob("results/broken/finetune/pretrain=24/**/metrics.json"))


def interrupted(command, environment, signalled):
    """What a terminal of 80 columns shows of a command that is stopped with Ctrl-C once `signalled` is shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm"},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # the tests may run where Ctrl-C is ignored
    )
    os.close(theirs)
    said, stopped = b"", False
    with contextlib.suppress(OSError):  # the other end was closed
        while select.select([ours], [], [], 120)[0] and (part := os.read(ours, 65536)):
            said += part
            if signalled in said and not stopped:
                stopped = True
                os.killpg(process.pid, signal.SIGINT)
    os.close(ours)
    try:
        return process.wait(timeout=60), said.decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_in_a_terminal_what_runs_is_drawn_and_ctrl_c_leaves_it_in_order(toy):
    path = toy.work / "long.yaml"
    path.write_text(yaml.safe_dump(altered(study="long", finetune__epochs=100_000, finetune__milestones=[])))
    command = [sys.executable, "-m", "snakemake", "--snakefile", toy.checkout / "Snakefile", "--directory", toy.work]
    code, said = interrupted([*command, "--cores", "2", "--configfile", path], toy.environment, b"images/s")
    assert code == 1
    assert "long: 6 jobs to do" in said
    assert "of 6 jobs done" in said
    assert "stopped: " in said
    assert "stopped with" in said
    assert "failed" not in said
    assert "Traceback" not in said
    assert said.rfind("\x1b[?25h") > said.rfind("\x1b[?25l") > 0  # the cursor is shown again
