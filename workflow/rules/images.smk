# From images as published (or generated in the same layouts) to stores: decoded once for all studies.


# Real images are no declared input: a study can be planned on a machine that has none of them.
rule decode:
    input:
        study=images_wanted,
    output:
        f"{STUDY.config.stores}/{{store}}/manifest.json",
    log:
        "logs/stores/{store}.log",
    priority: 10**9
    retries: 2 if STUDY.config.data.download else 0
    conda:
        "../../envs/viny.yaml"
    threads: 1 if STUDY.config.data.procedural else 8
    resources:
        runtime=lambda wildcards, attempt: at_most(240 * attempt),
    params:
        viny=VINY,
        study=STUDY_FILE,
    shell:
        "{params.viny} run stores/{wildcards.store} --configfile {params.study:q} --workers {threads} --log {log:q}"
