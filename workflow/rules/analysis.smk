# From results to conclusions. The rules from `statistics` on work in the folder of any {collection} of cells: the
# study, the part of it that is done so far, or the published numbers (published.smk).

TARGETS += [
    *in_study(*CONCLUSIONS),
    *in_study("figures/training_finetune.png", "figures/examples.png"),
    *in_study("tables/beside_paper.md", "figures/similarity_maps.png"),
    *(in_study(*VARIANTS) if STUDY.variants else []),
]


rule collect:
    input:
        [job.metrics for job in STUDY.jobs()],
    output:
        in_study(*COLLECTED),
    log:
        STUDY.logs / "analysis" / "collect.log",
    conda:
        "../../envs/viny.yaml"
    params:
        declaration=json.dumps(STUDY.declaration),
        miou=STUDY.config["analysis"]["miou"],
        folder=folder_of,
        code=code("collect"),
    shell:
        "python -m viny.analysis.collect --config {params.declaration:q} --miou {params.miou}"
        " --output {params.folder} --log {log}"


# What is finished of a running or broken study, with the rest as missing: `snakemake so_far`.
rule collect_so_far:
    output:
        [f"{RESULTS}/{SO_FAR}/{name}" for name in COLLECTED],
    log:
        STUDY.logs / "analysis" / "collect_so_far.log",
    conda:
        "../../envs/viny.yaml"
    params:
        declaration=json.dumps(STUDY.declaration),
        miou=STUDY.config["analysis"]["miou"],
        folder=folder_of,
        code=code("collect"),
        found=lambda wildcards: there(STUDY.jobs()),
    shell:
        "python -m viny.analysis.collect --config {params.declaration:q} --miou {params.miou}"
        " --output {params.folder} --log {log}"


rule so_far:
    input:
        [f"{RESULTS}/{SO_FAR}/{name}" for name in CONCLUSIONS],


# What each variant of the study changes; asked for where it has variants.
rule variants:
    input:
        lambda _: list(dict.fromkeys(job.metrics for member in STUDY.family for job in member.jobs(*TRAINED))),
    output:
        in_study(*VARIANTS),
        shown(in_study("tables/variants.html"), "What each variant changes", "Tables", "variants"),
        shown(in_study("figures/variants.png"), "What each variant changes", "Figures", "variants"),
    log:
        STUDY.logs / "analysis" / "variants.log",
    conda:
        "../../envs/viny.yaml"
    params:
        declaration=json.dumps(STUDY.variants_declaration),
        confidence=STUDY.config["analysis"]["confidence"],
        folder=folder_of,
        note=data_note,
        code=code("variants"),
    shell:
        "python -m viny.analysis.variants --config {params.declaration:q} --confidence {params.confidence}"
        " {params.note} --output {params.folder} --log {log}"


rule variants_so_far:
    output:
        [f"{RESULTS}/{SO_FAR}/{name}" for name in (*VARIANTS, "tables/variants.html", "figures/variants.png")],
    log:
        STUDY.logs / "analysis" / "variants_so_far.log",
    conda:
        "../../envs/viny.yaml"
    params:
        declaration=json.dumps(STUDY.variants_declaration),
        confidence=STUDY.config["analysis"]["confidence"],
        folder=folder_of,
        note=data_note,
        code=code("variants"),
        found=lambda wildcards: there(job for member in STUDY.family for job in member.jobs(*TRAINED)),
    shell:
        "python -m viny.analysis.variants --config {params.declaration:q} --confidence {params.confidence}"
        " {params.note} --output {params.folder} --log {log}"


rule statistics:
    input:
        cells=in_folder("cells.csv"),
    output:
        in_folder("statistics/summary.csv", "statistics/effects.csv", "statistics/overall.csv"),
    log:
        analysis_log("statistics"),
    conda:
        "../../envs/viny.yaml"
    params:
        folder=folder_of,
        confidence=STUDY.config["analysis"]["confidence"],
        shared=share_encoder,
        code=code("statistics"),
    shell:
        "python -m viny.analysis.statistics --cells {input.cells} --output {params.folder}"
        " --confidence {params.confidence} {params.shared} --log {log}"


rule scaling:
    input:
        cells=in_folder("cells.csv"),
    output:
        in_folder(
            "statistics/scaling.csv",
            "statistics/scaling_curves.csv",
            "statistics/doubling.csv",
        ),
    log:
        analysis_log("scaling"),
    conda:
        "../../envs/viny.yaml"
    params:
        folder=folder_of,
        confidence=STUDY.config["analysis"]["confidence"],
        code=code("scaling"),
    shell:
        "python -m viny.analysis.scaling --cells {input.cells} --output {params.folder}"
        " --confidence {params.confidence} --log {log}"


rule effective_data:
    input:
        cells=in_folder("cells.csv"),
    output:
        in_folder("statistics/effective_data.csv", "statistics/returns.csv"),
    log:
        analysis_log("effective_data"),
    conda:
        "../../envs/viny.yaml"
    params:
        folder=folder_of,
        confidence=STUDY.config["analysis"]["confidence"],
        code=code("effective_data"),
    shell:
        "python -m viny.analysis.effective_data --cells {input.cells} --output {params.folder}"
        " --confidence {params.confidence} --log {log}"


rule claims:
    input:
        cells=in_folder("cells.csv"),
        geometry=in_folder("geometry.csv"),
    output:
        json=in_folder("claims.json"),
        text=shown(in_folder("claims.md"), "Verdicts in full", "Verdicts", "claims"),
    log:
        analysis_log("claims"),
    conda:
        "../../envs/viny.yaml"
    params:
        folder=folder_of,
        confidence=STUDY.config["analysis"]["confidence"],
        shared=share_encoder,
        code=code("claims"),
    shell:
        "python -m viny.analysis.claims --cells {input.cells} --geometry {input.geometry}"
        " --output {params.folder} --confidence {params.confidence} {params.shared} --log {log}"


rule tables:
    input:
        cells=in_folder("cells.csv"),
        settings=in_folder("settings.json"),
        geometry=in_folder("geometry.csv"),
    output:
        in_folder(*(f"tables/{name}.{suffix}" for name in TABLES for suffix in ("csv", "md", "tex"))),
        *(shown(in_folder(f"tables/{name}.html"), what, "Tables", "tables") for name, what in TABLES.items()),
    log:
        analysis_log("tables"),
    conda:
        "../../envs/viny.yaml"
    params:
        folder=folder_of,
        code=code("tables"),
    shell:
        "python -m viny.analysis.tables --cells {input.cells} --settings {input.settings}"
        " --geometry {input.geometry} --output {params.folder} --log {log}"


rule figures:
    input:
        rules.statistics.output,
        rules.scaling.output,
        rules.effective_data.output,
        cells=in_folder("cells.csv"),
    output:
        *(shown(in_folder(f"figures/{name}.png"), what, "Figures", name) for name, what in FIGURES.items()),
        in_folder(*(f"figures/{name}.pdf" for name in FIGURES)),
    log:
        analysis_log("figures"),
    conda:
        "../../envs/viny.yaml"
    params:
        statistics=lambda wildcards, input: Path(input[0]).parent,
        folder=folder_of,
        note=data_note,
        code=code("figures"),
    shell:
        "python -m viny.analysis.figures --cells {input.cells} --statistics {params.statistics}"
        " {params.note} --output {params.folder} --log {log}"


rule overview:
    input:
        rules.tables.output,
        rules.figures.output,
        cells=in_folder("cells.csv"),
        settings=in_folder("settings.json"),
        claims=in_folder("claims.json"),
        costs=lambda wildcards: (
            [] if wildcards.collection == PUBLISHED else f"{RESULTS}/{wildcards.collection}/costs.csv"
        ),
        variants=lambda wildcards: (
            [f"{RESULTS}/{wildcards.collection}/{name}" for name in ("tables/variants.html", "figures/variants.png")]
            if has_variants(wildcards)
            else []
        ),
    output:
        shown(in_folder("overview.html"), "Opening page", "Verdicts", "overview"),
    log:
        analysis_log("overview"),
    conda:
        "../../envs/viny.yaml"
    params:
        folder=folder_of,
        note=data_note,
        variants=lambda wildcards: "--variants" if has_variants(wildcards) else "",
        code=code("overview"),
    shell:
        "python -m viny.analysis.overview --folder {params.folder} {params.variants} {params.note}"
        " --output {output} --log {log}"


rule beside_paper:
    input:
        cells=in_study("cells.csv"),
    output:
        in_study("statistics/beside_paper.csv"),
        in_study(*(f"tables/beside_paper.{suffix}" for suffix in ("csv", "md", "tex"))),
        in_study("figures/beside_paper.pdf"),
        shown(
            in_study("tables/beside_paper.html"),
            "Beside the paper",
            "Tables",
            "beside_paper",
        ),
        shown(
            in_study("figures/beside_paper.png"),
            "Beside the paper",
            "Figures",
            "beside_paper",
        ),
    log:
        STUDY.logs / "analysis" / "beside_paper.log",
    conda:
        "../../envs/viny.yaml"
    params:
        folder=lambda wildcards, output: Path(output[0]).parents[1],
        note=data_note,
        code=code("beside"),
    shell:
        "python -m viny.analysis.beside --cells {input.cells} {params.note}" " --output {params.folder} --log {log}"


rule training_figures:
    input:
        histories=in_study("histories.csv"),
    output:
        *(
            shown(in_study(f"figures/training_{stage}.png"), what, "Training", "training")
            for stage, what in {
                "pretrain": "Pre-training",
                "intermediate": "Intermediate tasks",
                "finetune": "Fine-tuning",
            }.items()
        ),
        in_study(*(f"figures/training_{stage}.pdf" for stage in ("pretrain", "intermediate", "finetune"))),
    log:
        STUDY.logs / "analysis" / "training_figures.log",
    conda:
        "../../envs/viny.yaml"
    params:
        folder=folder_of,
        note=data_note,
        code=code("figures_training"),
    shell:
        "python -m viny.analysis.figures_training --histories {input.histories} {params.note}"
        " --output {params.folder} --log {log}"


rule image_figures:
    input:
        cells=first_cells(),
        encoders=[job.folder / "examples.npz" for job in STUDY.jobs("pretrain")],
    output:
        *(
            shown(in_study(f"figures/{name}.png"), what, "Examples", name)
            for name, what in {
                "examples": "Segmentations",
                "failures": "Best, median and worst",
                "reconstructions": "Reconstructions",
            }.items()
        ),
        in_study(*(f"figures/{name}.pdf" for name in ("examples", "failures", "reconstructions"))),
        encoder_figures("png"),
        encoder_figures("pdf"),
    log:
        STUDY.logs / "analysis" / "image_figures.log",
    conda:
        "../../envs/viny.yaml"
    params:
        folder=folder_of,
        note=data_note,
        code=code("figures_images"),
    shell:
        "python -m viny.analysis.figures_images --cells {input.cells} --encoders {input.encoders}"
        " {params.note} --output {params.folder} --log {log}"


rule geometry_figures:
    input:
        similarity=in_study("similarity.csv"),
        maps=first_encoders(),
    output:
        shown(
            in_study("figures/similarity_by_distance.png"),
            "Similarity by distance",
            "Geometry",
            "similarity_by_distance",
        ),
        shown(
            in_study("figures/similarity_maps.png"),
            "Similarity maps",
            "Geometry",
            "similarity_maps",
        ),
        in_study("figures/similarity_by_distance.pdf", "figures/similarity_maps.pdf"),
    log:
        STUDY.logs / "analysis" / "geometry_figures.log",
    conda:
        "../../envs/viny.yaml"
    params:
        folder=folder_of,
        note=data_note,
        code=code("figures_geometry"),
    shell:
        "python -m viny.analysis.figures_geometry --similarity {input.similarity} --maps {input.maps}"
        " {params.note} --output {params.folder} --log {log}"


# The report as a file of the study, the same as by `snakemake --report`.
rule report_page:
    input:
        lambda _: TARGETS,
    output:
        in_study("report.html"),
    log:
        STUDY.logs / "analysis" / "report_page.log",
    conda:
        "../../envs/viny.yaml"
    params:
        snakefile=workflow.main_snakefile,
        config=json.dumps(STUDY.config),
    shell:
        "settings=$(mktemp --suffix .json); trap 'rm -f $settings' EXIT; echo {params.config:q} > $settings;"
        " python -m snakemake --snakefile {params.snakefile:q} --configfile $settings --nolock"
        " --report {output} > {log} 2>&1"
