# The paper's tables and figures: parquet in; csv, md, tex, html, pdf, svg, png out. No torch.


rule table1:
    input:
        script="figures/table1_posgen.py",
        shared=["figures/style.py", "figures/style.mplstyle", "figures/inputs.py", "figures/tables.py"],
        published="config/published.yaml",
        evaluations=lambda wildcards: posgen_evaluations(wildcards.protocol),
        baselines=expand(at(paths.BASELINE), task=POSGEN.tasks, allow_missing=True),
    output:
        report(
            at(paths.TABLE1) + ".html",
            caption="../report/table1.rst",
            category="Tables",
            labels={"table": "Table 1", "protocol": "{protocol}"},
        ),
        multiext(at(paths.TABLE1), ".csv", "_pairs.csv", ".md", ".tex"),
    log:
        log_of("table1/{protocol}"),
    benchmark:
        benchmark_of("table1/{protocol}")
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
        encodings=[f"--encoding={name}" for name in POSGEN.encodings],
        evaluations=lambda wildcards, input: [f"--evaluation={path}" for path in input.evaluations],
        baselines=lambda wildcards, input: [f"--baseline={path}" for path in input.baselines],
    shell:
        "python -m figures.table1_posgen --output {params.stem:q} --preset {params.preset:q} --protocol {wildcards.protocol:q}"
        " --published {input.published:q} {params.encodings:q} {params.evaluations:q} {params.baselines:q}"
        " > {log:q} 2>&1"


rule figure1:
    input:
        script="figures/fig1_rotation_angles.py",
        shared=["figures/style.py", "figures/style.mplstyle", "figures/inputs.py"],
    output:
        report(
            figure("fig1_rotation_angles.png"),
            caption="../report/fig1.rst",
            category="Figures",
            labels={"figure": "Figure 1", "protocol": "-"},
        ),
        multiext(figure("fig1_rotation_angles"), ".pdf", ".svg"),
    log:
        log_of("figure1"),
    benchmark:
        benchmark_of("figure1")
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
        "python -m figures.fig1_rotation_angles --output {params.stem:q} --preset {params.preset:q} > {log:q} 2>&1"


rule figure2:
    input:
        script="figures/fig2_dependencies.py",
        shared=["figures/style.py", "figures/style.mplstyle", "figures/inputs.py"],
    output:
        report(
            figure("fig2_dependencies.png"),
            caption="../report/fig2.rst",
            category="Figures",
            labels={"figure": "Figure 2", "protocol": "-"},
        ),
        multiext(figure("fig2_dependencies"), ".pdf", ".svg"),
    log:
        log_of("figure2"),
    benchmark:
        benchmark_of("figure2")
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
        "python -m figures.fig2_dependencies --output {params.stem:q} --preset {params.preset:q} > {log:q} 2>&1"


rule figure3:
    input:
        script="figures/fig3_validation_loss.py",
        shared=["figures/style.py", "figures/style.mplstyle", "figures/inputs.py"],
        evaluations=lambda wildcards: posgen_evaluations(wildcards.protocol),
    output:
        report(
            figure("fig3_validation_loss_{protocol}.png"),
            caption="../report/fig3.rst",
            category="Figures",
            labels={"figure": "Figure 3", "protocol": "{protocol}"},
        ),
        multiext(figure("fig3_validation_loss_{protocol}"), ".pdf", ".svg"),
    log:
        log_of("figure3/{protocol}"),
    benchmark:
        benchmark_of("figure3/{protocol}")
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
        evaluations=lambda wildcards, input: [f"--evaluation={path}" for path in input.evaluations],
    shell:
        "python -m figures.fig3_validation_loss --output {params.stem:q} --preset {params.preset:q}"
        " --protocol {wildcards.protocol:q} {params.evaluations:q} > {log:q} 2>&1"
