# Stage 1: masked image modeling, one encoder per size and seed (or per size).


rule pretrain:
    input:
        store=lambda wildcards: STUDY.manifest(study_of(wildcards).pretrain_store(wildcards.pretrain)),
    output:
        encoder=results("pretrain", "encoder.safetensors"),
        metrics=results("pretrain", "metrics.json"),
        history=results("pretrain", "history.jsonl"),
        examples=results("pretrain", "examples.npz"),
    log:
        log_file("pretrain"),
    # The longest jobs first.
    priority: lambda wildcards: int(wildcards.pretrain)
    conda:
        "../../envs/viny.yaml"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        runtime=lambda wildcards, attempt: minutes(study_of(wildcards), "pretrain", int(wildcards.pretrain), attempt),
    params:
        start=start,
        seed=seed_of,
        settings=lambda wildcards: study_of(wildcards).flags("pretrain"),
        code=code_fingerprint("viny.stages.pretrain"),
    shell:
        "{params.start} --images {wildcards.pretrain} --seed {params.seed}" " {params.settings} --log {log}"
