# From results to conclusions: tables, figures, statistics, verdicts and the page, by one command.


rule study:
    output:
        STUDY_FILE,
    log:
        f"logs/{STUDY.name}/study.log",
    conda:
        "../../envs/viny.yaml"
    params:
        text=lambda wildcards, output: STUDY_TEXT,  # with `output` Snakemake does not compare it
    shell:
        "printf '%s\\n' {params.text:q} > {output:q} 2> {log:q}"


rule analyze:
    input:
        analyzed,
    output:
        f"{FOLDER}/cells.csv",
        report(
            f"{FOLDER}/overview.html",
            category="Results",
            labels={"shows": "All results on one page"},
        ),
    log:
        f"logs/{STUDY.name}/analyze.log",
    conda:
        "../../envs/viny.yaml"
    params:
        viny=VINY,
        study=STUDY_FILE,
        folder=lambda wildcards, output: Path(output[0]).parent,
    shell:
        "{params.viny} analyze --configfile {params.study:q} --output {params.folder:q} --log {log:q}"


# What is finished of a running or broken study, with the rest as missing: `snakemake partial`.
rule partial:
    input:
        study=lambda wildcards: study_file(),
    log:
        f"logs/{STUDY.name}/partial.log",
    conda:
        "../../envs/viny.yaml"
    params:
        viny=VINY,
        folder=FOLDER / "partial",
    shell:
        "{params.viny} analyze --configfile {input.study:q} --output {params.folder:q} --log {log:q}"


# The paper's own numbers through the same analysis: `snakemake published`. No images, no training, seconds.
rule published:
    output:
        f"{STUDY.config.results}/published/cells.csv",
        f"{STUDY.config.results}/published/overview.html",
    log:
        "logs/published/analyze.log",
    conda:
        "../../envs/viny.yaml"
    params:
        viny=VINY,
        folder=lambda wildcards, output: Path(output[0]).parent,
    shell:
        "{params.viny} analyze --published --output {params.folder:q} --log {log:q}"
