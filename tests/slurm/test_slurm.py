"""The toy study on a real SLURM: the same numbers as without a cluster, whatever happens on the way."""

import os
import signal

import pytest
import yaml
from cluster import wait_for
from study import environment

pytestmark = pytest.mark.slurm

ALONE = ("--group-components", "cells=1")  # every cell in a submission of its own


@pytest.mark.quick
def test_packed_and_spread_cells_equal_a_local_run_though_one_is_killed(local_cells, tmp_path):
    study = local_cells.copy(tmp_path / "run")
    study.edit_profile("  pretrain: &training {mem_mb: *memory}\n  # pretrain:", "  pretrain:")  # the form for gres
    driver = study.start()
    wait_for(study.trainings, 120, f"a cell; {study.said}")
    os.kill(study.trainings()[0], signal.SIGKILL)
    assert driver.wait(200) == 0, study.said

    assert study.results() == local_cells.results()
    assert len(study.results()) == 4
    jobs = study.jobs()
    assert sorted(job["JobState"] for job in jobs) == ["COMPLETED", "COMPLETED", "COMPLETED", "FAILED"], (
        "one submission for the encoder, two for three cells, one of them again"
    )
    assert sorted(job["MinMemoryNode"] for job in jobs) == ["1000M", "500M", "500M", "500M"]
    assert len({job["NodeList"] for job in jobs}) > 1
    assert {job["TresPerNode"] for job in jobs} == {"gres:gpu:1"}
    assert {(job["NumCPUs"], job["Requeue"]) for job in jobs} == {("1", "1")}
    assert {"00:11:00", "00:22:00"} <= {job["TimeLimit"] for job in jobs}, "a submission asks for the sum of its cells"


def test_killed_cell_is_tried_again_with_its_group(local_long, tmp_path):
    study = local_long.copy(tmp_path / "run")
    study.edit_profile("&training {mem_mb: *memory}\n", "&training {mem_mb: *memory, gpu: 1}\n")
    driver = study.start()
    wait_for(lambda: len(study.results()) == 1 and study.trainings(), 90, "the second cell of the group")
    (first,) = study.results("provenance").values()
    os.kill(study.trainings()[0], signal.SIGKILL)
    assert driver.wait(200) == 0, study.said

    assert study.results() == local_long.results()
    assert sorted(job["JobState"] for job in study.jobs()) == ["COMPLETED", "FAILED"]
    assert [job["TresPerJob"] for job in study.jobs()] == ["gres:gpu:1"] * 2
    assert sorted(job["MinMemoryNode"] for job in study.jobs()) == ["1000M", "500M"]
    assert first in study.results("provenance").values(), "the finished cell was trained again"


def test_cancelled_job_saves_and_carries_on(local_long, tmp_path):
    study = local_long.copy(tmp_path / "run", seeds=[1])
    driver = study.start(*ALONE)
    job = environment(study.wait_for_training())["SLURM_JOB_ID"]
    study.cluster.run("scancel", job)
    assert driver.wait(200) == 0, study.said

    assert study.results().items() <= local_long.results().items()
    assert sorted(job["JobState"] for job in study.jobs()) == ["CANCELLED", "COMPLETED"]
    assert [cost["resumes"] for cost in study.results("cost").values()] == [1]


def test_interrupted_driver_cancels_its_jobs_and_carries_on(local_long, tmp_path):
    study = local_long.copy(tmp_path / "run", seeds=[1])
    driver = study.start(*ALONE)
    study.wait_for_training()
    driver.send_signal(signal.SIGINT)
    assert driver.wait(60) != 0
    wait_for(lambda: not study.running_jobs(), 20, "the job to end")
    assert study.run(*ALONE) == 0, study.said

    assert study.results().items() <= local_long.results().items()
    assert sorted(job["JobState"] for job in study.jobs()) == ["CANCELLED", "COMPLETED"]
    assert [cost["resumes"] for cost in study.results("cost").values()] == [1]


def test_warning_before_the_time_limit_saves_the_state(local_long, tmp_path):
    study = local_long.copy(tmp_path / "run", seeds=[1])
    driver = study.start(*ALONE, "--set-resources", "finetune:runtime=attempt")
    training = study.wait_for_training()
    os.kill(training, signal.SIGSTOP)  # so that it is not done before the warning, which lets it go on
    assert driver.wait(200) == 0, study.said

    assert study.results().items() <= local_long.results().items()
    assert sorted((job["JobState"], job["TimeLimit"]) for job in study.jobs()) == [
        ("COMPLETED", "00:02:00"),
        ("FAILED", "00:01:00"),
    ]
    assert [cost["resumes"] for cost in study.results("cost").values()] == [1]


def test_crashed_node(local_long, tmp_path, cluster):
    study = local_long.copy(tmp_path / "run", seeds=[1])
    driver = study.start(*ALONE)
    job = environment(study.wait_for_training())["SLURM_JOB_ID"]
    node = study.running_jobs()[0]["NodeList"]
    cluster.crash_node(node)
    wait_for(lambda: not study.trainings(), 5, "the node's processes to be dead")
    try:
        study.start_again(job)
        assert driver.wait(200) == 0, study.said
    finally:
        cluster.start_node(int(node.removeprefix("node")))
    assert study.results().items() <= local_long.results().items()
    [job] = study.jobs()
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1")
    assert job["NodeList"] != node


def test_preempted_job_carries_on(local_long, tmp_path):
    study = local_long.copy(tmp_path / "run", seeds=[1])
    driver = study.start(*ALONE)
    job = environment(study.wait_for_training())["SLURM_JOB_ID"]
    node = study.running_jobs()[0]["NodeList"]
    urgent = ("sbatch", "--partition=urgent", f"--nodelist={node}", "--cpus-per-task=2", "--output=/dev/null")
    study.cluster.run(*urgent, f"--chdir={tmp_path}", "--wrap=sleep 1")
    study.start_again(job)
    assert driver.wait(200) == 0, study.said

    assert study.results().items() <= local_long.results().items()
    assert [(job["JobState"], job["Restarts"]) for job in study.jobs()] == [("COMPLETED", "1")]
    assert [cost["resumes"] for cost in study.results("cost").values()] == [1]


def test_killed_driver_started_again_at_once(local_long, tmp_path):
    study = local_long.copy(tmp_path / "run", seeds=[1])
    driver = study.start(*ALONE)
    first = study.wait_for_training()
    os.kill(first, signal.SIGSTOP)  # so that it is not done before the second job comes
    driver.kill()
    driver.wait()
    study.unlock()
    driver = study.start(*ALONE)
    wait_for(lambda: "another process is working on this run" in study.logged(), 90, f"the second job; {study.said}")
    os.kill(first, signal.SIGCONT)
    assert driver.wait(200) == 0, study.said

    assert study.results().items() <= local_long.results().items()
    wait_for(lambda: not study.running_jobs(), 20, "the first job to end")
    assert [job["JobState"] for job in study.jobs()] == ["COMPLETED", "COMPLETED"]
    assert "finished before" in study.logged(), "trained twice"
    assert [cost["resumes"] for cost in study.results("cost").values()] == [0]


def test_killed_driver_started_again_after_its_jobs_are_canceled(local_long, tmp_path):
    study = local_long.copy(tmp_path / "run", seeds=[1])
    driver = study.start(*ALONE)
    study.wait_for_training()
    driver.kill()
    driver.wait()
    study.cluster.run("scancel", "-u", str(os.getuid()))
    wait_for(lambda: not study.cluster.count("squeue", "-h"), 60, "the jobs to end")
    study.unlock()
    assert study.run(*ALONE) == 0, study.said

    assert study.results().items() <= local_long.results().items()
    assert sorted(job["JobState"] for job in study.jobs()) == ["CANCELLED", "COMPLETED"]
    assert [cost["resumes"] for cost in study.results("cost").values()] == [1]


def test_cells_behind_a_failing_one_are_run(local_cells, tmp_path):
    study = local_cells.copy(tmp_path / "run")
    diverging = {"finetune": {"learning_rate": 10.0, "weight_decay": 1e30}}
    (study.folder / "study.yaml").write_text(yaml.safe_dump(study.config | {"variants": {"bad": diverging}}))
    assert study.run("--group-components", "cells=6", "--retries", "1") != 0
    assert study.results() == local_cells.results(), "all cells that can be trained"
    assert "the loss is" in study.logged()
    assert "it failed so before" in study.logged(), "trained again although it cannot succeed"
