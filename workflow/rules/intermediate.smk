# Stage 2: an intermediate task between pre-training and segmentation.


rule intermediate:
    input:
        store=lambda wildcards: STUDY.manifest(study_of(wildcards).task_stores(wildcards.intermediate)["train"]),
        test_store=test_store_of,
        encoder=pretrained_of,
    output:
        encoder=results("intermediate", "encoder.safetensors"),
        metrics=results("intermediate", "metrics.json"),
        history=results("intermediate", "history.jsonl"),
    log:
        log_file("intermediate"),
    conda:
        "../../envs/viny.yaml"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        # No data set of an intermediate task is larger than 15,000 images.
        runtime=lambda wildcards, attempt: minutes(
            study_of(wildcards), f"intermediate.{wildcards.intermediate}", 15000, attempt
        ),
    params:
        start=start,
        settings=lambda wildcards: study_of(wildcards).flags("intermediate", wildcards.intermediate),
        code=code_fingerprint("viny.stages.intermediate"),
    shell:
        "{params.start} --task {wildcards.intermediate}" " --seed {wildcards.seed} {params.settings} --log {log}"
