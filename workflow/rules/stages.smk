# The stages of training, and the geometry of the encoders: one command for all.


rule pretrain:
    input:
        lambda wildcards: inputs(wildcards, "pretrain"),
    output:
        results("pretrain"),
    log:
        f"logs/{STUDY.name}/{{run}}.log",
    # The longest jobs first.
    priority: lambda wildcards: STUDY.jobs[wildcards.run].images
    conda:
        "../../envs/viny.yaml"
    threads: THREADS
    resources:
        gpu=GPU,
        runtime=minutes,
    params:
        viny=VINY,
        study=STUDY_FILE,
    shell:
        "{params.viny} run {wildcards.run} --configfile {params.study:q} --log {log:q}"


use rule pretrain as intermediate with:
    input:
        lambda wildcards: inputs(wildcards, "intermediate"),
    output:
        results("intermediate"),
    priority: 1


use rule pretrain as finetune with:
    input:
        lambda wildcards: inputs(wildcards, "finetune"),
    output:
        results("finetune"),
    priority: 0


use rule pretrain as geometry with:
    input:
        lambda wildcards: inputs(wildcards, "geometry"),
    output:
        results("geometry"),
    priority: 0
