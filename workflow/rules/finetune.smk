# Stage 3: segmentation, measured in the same job.


rule finetune:
    input:
        store=lambda wildcards: STUDY.manifest(study_of(wildcards).finetune_store(wildcards.downstream)),
        encoder=encoder_of,
    output:
        model=results("finetune", "model.safetensors"),
        metrics=results("finetune", "metrics.json"),
        history=results("finetune", "history.jsonl"),
        examples=results("finetune", "examples.npz"),
    log:
        log_file("finetune"),
    conda:
        "../../envs/viny.yaml"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        runtime=lambda wildcards, attempt: minutes(study_of(wildcards), "finetune", int(wildcards.downstream), attempt),
    params:
        start=start,
        settings=lambda wildcards: study_of(wildcards).flags("finetune"),
        code=code_fingerprint("viny.stages.finetune"),
    shell:
        "{params.start} --images {wildcards.downstream}" " --seed {wildcards.seed} {params.settings} --log {log}"
