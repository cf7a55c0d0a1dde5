# viny: how much do pre-training data, an intermediate task and labels each buy a small Vision Transformer?
# This file is the table of contents; every rule is a command that also runs by hand (`viny --help`).
from snakemake.utils import min_version

min_version("9.27")


# config.yaml holds the demo. A study given with --configfile is not laid over it but stands alone: what it
# does not say is as in the paper (the defaults of the settings), not as in the demo.
if not workflow.configfiles:

    configfile: f"{workflow.basedir}/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/stages.smk"
include: "workflow/rules/analysis.smk"


localrules:
    all,
    study,


rule all:
    default_target: True
    input:
        f"{FOLDER}/overview.html",
        targets,


onstart:
    if workflow.is_main_process and workflow.executor_plugin.name == "slurm":
        from viny.drivers import check_cluster

        try:
            check_cluster(workflow.executor_settings.status_command)
        except VinyError as error:
            sys.exit(str(error))
    elif workflow.is_main_process:
        for sentence in advice(STUDY.config):
            logs.log.warning(sentence)


onerror:
    if workflow.is_main_process:
        from viny.commands.status import say_end

        if VIEW:
            VIEW.close()
        say_end(STUDY)


# The states of finished runs have served: they are kept until Snakemake has accepted all results.
onsuccess:
    prune_states(FOLDER / ".state")
    if VIEW:
        VIEW.close()
    if (FOLDER / "overview.html").exists():
        print(f"All results on one page: {FOLDER}/overview.html", file=sys.stderr)
