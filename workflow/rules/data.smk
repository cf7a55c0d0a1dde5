# From images as published (or generated in the same layouts) to stores: decoded once for all studies.


rule procedural:
    output:
        "resources/procedural/{recipe}/{origin}.json",
    log:
        STUDY.logs / "procedural" / "{recipe}/{origin}.log",
    conda:
        "../../envs/viny.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: at_most(30 * attempt),
    params:
        images=lambda wildcards: STUDY.procedural[wildcards.origin],
        pixels=lambda wildcards: STUDY.procedural["pixels"],
        seed=lambda wildcards: STUDY.procedural["seed"],
        folder="resources/procedural/{recipe}",
    shell:
        "python -m viny.data.procedural --dataset {wildcards.origin} --images {params.images}"
        " --pixels {params.pixels} --seed {params.seed}"
        " --output {params.folder} --marker {output} --log {log}"


# Real images are no declared input: a study can be planned on a machine that has none of them. The largest part of
# a store comes first, so that the others find their images decoded. A change of this code is no reason to train
# again: stores carry the version of their format and checksums of their images.
rule ingest:
    input:
        lambda wildcards: (STUDY.procedural_marker(wildcards.dataset) if wildcards.generated else []),
    output:
        f"{STUDY.config['stores']}/{{generated}}{{dataset}}/{{pixels}}px-order{{order}}/{{part}}.json",
    log:
        STUDY.logs / "ingest" / "{generated}{dataset}/{pixels}px-order{order}/{part}.log",
    priority: lambda wildcards: 10**9 + int(wildcards.part.partition("=")[2] or 10**8)
    retries: 2 if STUDY.config["data"]["download"] else 0
    conda:
        "../../envs/viny.yaml"
    threads: 1 if STUDY.procedural else 8
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: at_most(240 * attempt),
    params:
        first=lambda wildcards: wildcards.part.removeprefix("first="),
        source=images_at,
    shell:
        "python -m viny.data.ingest --dataset {wildcards.dataset} {params.source}"
        " --count {params.first} --pixels {wildcards.pixels} --order-seed {wildcards.order}"
        " --workers {threads} --manifest {output} --log {log}"
