# viny: how much do pre-training data, an intermediate task and labels each buy a small Vision Transformer?
# This file is the table of contents; every rule is a command that also runs by hand (see --help of each).
from snakemake.utils import min_version

min_version("9.0")


# config.yaml holds the demo. A study given with --configfile is not laid over it but stands alone: what it
# does not say is as in the paper (the defaults of the schema), not as in the demo.
if not workflow.configfiles:

    configfile: f"{workflow.basedir}/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/intermediate.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/geometry.smk"
include: "workflow/rules/analysis_common.smk"
include: "workflow/rules/analysis.smk"
include: "workflow/rules/published.smk"


localrules:
    all,
    so_far,
    published,
    report_page,


rule all:
    input:
        TARGETS,


# The states of finished runs have served: they are kept until Snakemake has accepted all results.
onsuccess:
    from viny.training.state import prune_states

    for member in STUDY.family:
        prune_states(member.state)
