# PosGen's tables and figures, and the two figures that need no run: parquet in; csv, md, tex, html, pdf, svg, png out.

# Of every study; {protocol}: one for each of its protocols.
STUDY_STEMS = {
    "table1": (["table1_{protocol}"], ["fig3_validation_loss_{protocol}", "shortcuts_table1_{protocol}"]),
    "five_seeds": (["five_seeds_{protocol}"], []),
    "extended": (["extended_{protocol}"], []),
    "keyed": (["keyed_{protocol}"], ["shortcuts_keyed_{protocol}"]),
    "rounding": (["rounding"], ["rounding"]),
    "ablation": (["ablation"], ["ablation"]),
}


def study_files(study, place, kinds, stems):
    """The files of some stems of a study, none where the preset leaves it out."""
    if study not in STUDIES:
        return []
    return expand([place(f"{stem}.{{kind}}") for stem in stems], protocol=STUDIES[study].protocols, kind=kinds)


def study_tables(study):
    return study_files(study, table, TABLE_KINDS, STUDY_STEMS[study][0])


def study_figures(study):
    return study_files(study, figure, FIGURE_KINDS, STUDY_STEMS[study][1])


def baselines_of_study(wildcards):
    """What needs no training, for every task of a study."""
    tasks = STUDIES["table1" if wildcards.study not in STUDIES else wildcards.study].tasks
    return expand(at(posgen_paths.BASELINE), protocol=wildcards.protocol, task=tasks)


def kept_beside(wildcards):
    """Table 1's rows that the repository keeps of this preset, shown beside a run's own."""
    path = f"{at(paths.KEPT)}/table1_{wildcards.protocol}.parquet"
    return [path] if wildcards.study == "table1" and Path(workflow.basedir, path).is_file() else []


def encoding_options(wildcards):
    return [f"--encoding={name}" for name in STUDIES[wildcards.study].encodings]


def stem_of_figure(wildcards, output):
    """What a figure's files have in common, where a rule makes a table first."""
    return os.path.splitext(next(path for path in output if path.endswith(".png")))[0]


TABLES += study_tables("table1")
FIGURES += study_figures("table1") + expand(
    figure("{name}.{kind}"), name=["fig1_rotation_angles", "fig2_dependencies"], kind=FIGURE_KINDS
)


wildcard_constraints:
    study="|".join(STUDY_STEMS),


rule study_table:
    input:
        published="config/published.yaml",
        evaluation=lambda wildcards: posgen_evaluations(wildcards.study, wildcards.protocol),
        baseline=baselines_of_study,
        kept=kept_beside,
    output:
        table_at(table("{study}_{protocol}"), "table1", "{study}", "{protocol}"),
    log:
        log_of("study_table/{study}/{protocol}"),
    benchmark:
        benchmark_of("study_table/{study}/{protocol}")
    wildcard_constraints:
        study="table1|five_seeds|extended|keyed",
    conda:
        DRAWING
    threads: threads_of("render")
    resources:
        **asked("render"),
    params:
        stem=stem_of_output,
        preset=PRESET,
        layout=lambda wildcards: "table1" if wildcards.study == "five_seeds" else wildcards.study,
        encodings=encoding_options,
        evaluations=options("evaluation"),
        baselines=options("baseline"),
        kept=options("kept"),
        code=code_of("figures.table1_posgen"),
    shell:
        "python -m figures.table1_posgen --output {params.stem:q} --preset {params.preset:q} --study {params.layout:q}"
        " --protocol {wildcards.protocol:q} --published {input.published:q} {params.encodings:q} {params.evaluations:q}"
        " {params.baselines:q} {params.kept:q} > {log:q} 2>&1"


rule study_shortcuts:
    input:
        evaluation=lambda wildcards: posgen_evaluations(wildcards.study, wildcards.protocol),
        baseline=baselines_of_study,
    output:
        figure_at(figure("shortcuts_{study}_{protocol}"), "shortcuts", "Shortcuts, {study}", "{protocol}"),
    log:
        log_of("study_shortcuts/{study}/{protocol}"),
    benchmark:
        benchmark_of("study_shortcuts/{study}/{protocol}")
    wildcard_constraints:
        study="table1|keyed",
    conda:
        DRAWING
    threads: threads_of("render")
    resources:
        **asked("render"),
    params:
        stem=stem_of_output,
        preset=PRESET,
        evaluations=options("evaluation"),
        baselines=options("baseline"),
        code=code_of("figures.shortcuts"),
    shell:
        "python -m figures.shortcuts --output {params.stem:q} --preset {params.preset:q}"
        " --protocol {wildcards.protocol:q} {params.evaluations:q} {params.baselines:q} > {log:q} 2>&1"


rule rounding_table:
    input:
        study=[at(posgen_paths.STUDY).replace("{study}", "rounding")],
    output:
        table_at(table("rounding"), "rounding", "Rules of rounding", "both", [".csv", ".md", ".tex"]),
        figure_at(figure("rounding"), "rounding", "Rules of rounding", "both"),
    log:
        log_of("rounding_table"),
    benchmark:
        benchmark_of("rounding_table")
    conda:
        DRAWING
    threads: threads_of("render")
    resources:
        **asked("render"),
    params:
        stem=stem_of_output,
        draw=stem_of_figure,
        preset=PRESET,
        studies=options("study"),
        code=code_of("figures.rounding"),
    shell:
        "python -m figures.rounding --output {params.stem:q} --draw {params.draw:q} --preset {params.preset:q}"
        " {params.studies:q} > {log:q} 2>&1"


rule ablation_table:
    input:
        study=[at(posgen_paths.STUDY).replace("{study}", "ablation")],
    output:
        table_at(table("ablation"), "ablation", "Ablation of the protocols", "both", [".csv", ".md", ".tex"]),
        figure_at(figure("ablation"), "ablation", "Ablation of the protocols", "both"),
    log:
        log_of("ablation_table"),
    benchmark:
        benchmark_of("ablation_table")
    conda:
        DRAWING
    threads: threads_of("render")
    resources:
        **asked("render"),
    params:
        stem=stem_of_output,
        draw=stem_of_figure,
        preset=PRESET,
        studies=options("study"),
        code=code_of("figures.ablation"),
    shell:
        "python -m figures.ablation --output {params.stem:q} --draw {params.draw:q} --preset {params.preset:q}"
        " {params.studies:q} > {log:q} 2>&1"


rule figure1:
    output:
        figure_at(figure("fig1_rotation_angles"), "fig1", "Figure 1"),
    log:
        log_of("figure1"),
    benchmark:
        benchmark_of("figure1")
    conda:
        DRAWING
    threads: threads_of("render")
    resources:
        **asked("render"),
    params:
        stem=stem_of_output,
        preset=PRESET,
        code=code_of("figures.fig1_rotation_angles", methods=["rope"]),
    shell:
        "python -m figures.fig1_rotation_angles --output {params.stem:q} --preset {params.preset:q} > {log:q} 2>&1"


rule figure2:
    output:
        figure_at(figure("fig2_dependencies"), "fig2", "Figure 2"),
    log:
        log_of("figure2"),
    benchmark:
        benchmark_of("figure2")
    conda:
        DRAWING
    threads: threads_of("render")
    resources:
        **asked("render"),
    params:
        stem=stem_of_output,
        preset=PRESET,
        code=code_of("figures.fig2_dependencies"),
    shell:
        "python -m figures.fig2_dependencies --output {params.stem:q} --preset {params.preset:q} > {log:q} 2>&1"


rule figure3_one:
    input:
        evaluation=lambda wildcards: posgen_evaluations("table1", wildcards.protocol),
    output:
        figure_at(figure("fig3_validation_loss_{protocol}"), "fig3", "Figure 3", "{protocol}"),
    log:
        log_of("figure3_one/{protocol}"),
    benchmark:
        benchmark_of("figure3_one/{protocol}")
    conda:
        DRAWING
    threads: threads_of("render")
    resources:
        **asked("render"),
    params:
        stem=stem_of_output,
        preset=PRESET,
        evaluations=options("evaluation"),
        code=code_of("figures.fig3_validation_loss"),
    shell:
        "python -m figures.fig3_validation_loss --output {params.stem:q} --preset {params.preset:q}"
        " --protocol {wildcards.protocol:q} {params.evaluations:q} > {log:q} 2>&1"
