# The paper's own numbers through the same analysis: `snakemake published`. No images, no training, seconds.


rule published:
    input:
        [f"{RESULTS}/{PUBLISHED}/{name}" for name in CONCLUSIONS],


rule published_cells:
    output:
        cells=f"{RESULTS}/{PUBLISHED}/cells.csv",
        geometry=f"{RESULTS}/{PUBLISHED}/geometry.csv",
        settings=f"{RESULTS}/{PUBLISHED}/settings.json",
    log:
        f"logs/{PUBLISHED}/analysis/published_cells.log",
    conda:
        "../../envs/viny.yaml"
    params:
        code=code("published"),
    shell:
        "python -m viny.analysis.published --output {output.cells} --geometry {output.geometry}"
        " --settings {output.settings} --log {log}"
