# Geometry of the patch tokens of every encoder, where `geometry.enabled` asks for it.


rule geometry:
    input:
        store=lambda wildcards: STUDY.manifest(STUDY.geometry_store()),
        encoder=encoder_of,
    output:
        metrics=results("geometry", "metrics.json"),
        similarity=results("geometry", "similarity.npz"),
    log:
        log_file("geometry"),
    conda:
        "../../envs/viny.yaml"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        runtime=lambda wildcards, attempt: at_most(60 * attempt),
    params:
        start=start,
        seed=seed_of,
        settings=STUDY.flags("geometry"),
        code=code_fingerprint("viny.stages.geometry"),
    shell:
        "{params.start} --seed {params.seed} {params.settings} --log {log}"
