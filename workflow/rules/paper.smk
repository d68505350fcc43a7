# The paper's tables and figures: parquet in; csv, md, tex, html, pdf, svg, png out. No torch.


rule study_table:
    input:
        script="figures/table1_posgen.py",
        shared=["figures/style.py", "figures/style.mplstyle", "figures/inputs.py", "figures/tables.py"],
        published="config/published.yaml",
        evaluations=lambda wildcards: posgen_evaluations(wildcards.study, wildcards.protocol),
        baselines=baselines_of_study,
    output:
        report(
            at(paths.STUDY_TABLE) + ".html",
            caption="../report/table1.rst",
            category="Tables",
            labels={"table": "{study}", "protocol": "{protocol}"},
        ),
        multiext(at(paths.STUDY_TABLE), ".csv", "_pairs.csv", ".md", ".tex"),
    log:
        log_of("study_table/{study}/{protocol}"),
    benchmark:
        benchmark_of("study_table/{study}/{protocol}")
    wildcard_constraints:
        study="table1|extended|keyed",
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
        encodings=lambda wildcards: [f"--encoding={name}" for name in POSGEN.all_studies[wildcards.study].encodings],
        evaluations=lambda wildcards, input: [f"--evaluation={path}" for path in input.evaluations],
        baselines=lambda wildcards, input: [f"--baseline={path}" for path in input.baselines],
    shell:
        "python -m figures.table1_posgen --output {params.stem:q} --preset {params.preset:q} --study {wildcards.study:q}"
        " --protocol {wildcards.protocol:q} --published {input.published:q} {params.encodings:q} {params.evaluations:q}"
        " {params.baselines:q} > {log:q} 2>&1"


rule study_shortcuts:
    input:
        script="figures/shortcuts.py",
        shared=["figures/style.py", "figures/style.mplstyle", "figures/inputs.py"],
        evaluations=lambda wildcards: posgen_evaluations(wildcards.study, wildcards.protocol),
        baselines=baselines_of_study,
    output:
        report(
            figure("shortcuts_{study}_{protocol}.png"),
            caption="../report/shortcuts.rst",
            category="Figures",
            labels={"figure": "Shortcuts, {study}", "protocol": "{protocol}"},
        ),
        multiext(figure("shortcuts_{study}_{protocol}"), ".pdf", ".svg"),
    log:
        log_of("study_shortcuts/{study}/{protocol}"),
    benchmark:
        benchmark_of("study_shortcuts/{study}/{protocol}")
    wildcard_constraints:
        study="table1|keyed",
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
        baselines=lambda wildcards, input: [f"--baseline={path}" for path in input.baselines],
    shell:
        "python -m figures.shortcuts --output {params.stem:q} --preset {params.preset:q}"
        " --protocol {wildcards.protocol:q} {params.evaluations:q} {params.baselines:q} > {log:q} 2>&1"


rule rounding_table:
    input:
        script="figures/rounding.py",
        shared=["figures/style.py", "figures/style.mplstyle", "figures/inputs.py", "figures/tables.py"],
        study=[at(paths.STUDY).replace("{study}", "rounding")],
        encodings="config/encodings.yaml",
    output:
        report(
            f"{at(paths.TABLES)}/rounding.html",
            caption="../report/rounding.rst",
            category="Tables",
            labels={"table": "Rules of rounding", "protocol": "both"},
        ),
        report(
            figure("rounding.png"),
            caption="../report/rounding.rst",
            category="Figures",
            labels={"figure": "Rules of rounding", "protocol": "both"},
        ),
        multiext(f"{at(paths.TABLES)}/rounding", ".csv", ".md", ".tex"),
        multiext(figure("rounding"), ".pdf", ".svg"),
    log:
        log_of("rounding_table"),
    benchmark:
        benchmark_of("rounding_table")
    conda:
        "../../envs/figures.yaml"
    threads: need("render", "threads")
    resources:
        mem_mb=need("render", "mem_mb"),
        runtime=need("render", "runtime"),
        gpu=need("render", "gpu"),
    params:
        stem=stem_of_output,
        draw=stem_of_figure,
        preset=PRESET,
        studies=lambda wildcards, input: [f"--study={path}" for path in input.study],
    shell:
        "python -m figures.rounding --output {params.stem:q} --draw {params.draw:q} --preset {params.preset:q}"
        " {params.studies:q} --encodings {input.encodings:q} > {log:q} 2>&1"


rule ablation_table:
    input:
        script="figures/ablation.py",
        shared=["figures/style.py", "figures/style.mplstyle", "figures/inputs.py", "figures/tables.py"],
        study=[at(paths.STUDY).replace("{study}", "ablation")],
    output:
        report(
            f"{at(paths.TABLES)}/ablation.html",
            caption="../report/ablation.rst",
            category="Tables",
            labels={"table": "Ablation of the protocols", "protocol": "both"},
        ),
        report(
            figure("ablation.png"),
            caption="../report/ablation.rst",
            category="Figures",
            labels={"figure": "Ablation of the protocols", "protocol": "both"},
        ),
        multiext(f"{at(paths.TABLES)}/ablation", ".csv", ".md", ".tex"),
        multiext(figure("ablation"), ".pdf", ".svg"),
    log:
        log_of("ablation_table"),
    benchmark:
        benchmark_of("ablation_table")
    conda:
        "../../envs/figures.yaml"
    threads: need("render", "threads")
    resources:
        mem_mb=need("render", "mem_mb"),
        runtime=need("render", "runtime"),
        gpu=need("render", "gpu"),
    params:
        stem=stem_of_output,
        draw=stem_of_figure,
        preset=PRESET,
        studies=lambda wildcards, input: [f"--study={path}" for path in input.study],
    shell:
        "python -m figures.ablation --output {params.stem:q} --draw {params.draw:q} --preset {params.preset:q}"
        " {params.studies:q} > {log:q} 2>&1"


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


rule figure3_one:
    input:
        script="figures/fig3_validation_loss.py",
        shared=["figures/style.py", "figures/style.mplstyle", "figures/inputs.py"],
        evaluations=lambda wildcards: posgen_evaluations("table1", wildcards.protocol),
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
