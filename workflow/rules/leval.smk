# L-Eval: Table 2. The paper's numbers with statistics; ours say "not run" until rules evaluate models.

TABLES += multiext(at(paths.TABLE2), ".csv", "_pairs.csv", ".md", ".tex", ".html")


rule table2:
    input:
        script="figures/table2_leval.py",
        shared=[
            "figures/leval.py",
            "figures/style.py",
            "figures/style.mplstyle",
            "figures/inputs.py",
            "figures/tables.py",
        ],
        published="config/published.yaml",
    output:
        report(
            at(paths.TABLE2) + ".html",
            caption="../report/table2.rst",
            category="Tables",
            labels={"table": "Table 2", "protocol": "-"},
        ),
        multiext(at(paths.TABLE2), ".csv", "_pairs.csv", ".md", ".tex"),
    log:
        log_of("table2"),
    benchmark:
        benchmark_of("table2")
    conda:
        "../../envs/figures.yaml"
    threads: need("render", "threads")
    resources:
        mem_mb=need("render", "mem_mb"),
        runtime=need("render", "runtime"),
        gpu=need("render", "gpu"),
    params:
        stem=stem_of_output,
        preset=PRESET,
    shell:
        "python -m figures.table2_leval --output {params.stem:q} --preset {params.preset:q} --published {input.published:q}"
        " > {log:q} 2>&1"
