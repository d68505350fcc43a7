# Every table and figure: parquet in; csv, md, tex, html, pdf, svg, png out. What each is stands in figures_names.smk.


wildcard_constraints:
    study="|".join(STUDY_STEMS),


# All of them on one page. Local: it takes a second, and waits for every other job.
rule summary:
    input:
        template="workflow/report/summary.html.j2",
        caption=CAPTIONS,
        picture=[path for path in FIGURES if path.endswith(".svg")],
        table=[path for path in [*TABLES, *FIGURES] if path.endswith(".html")],
        rows=DRAWN_ROWS,
    output:
        at(paths.SUMMARY),
    log:
        log_of("summary"),
    localrule: True
    conda:
        DRAWING
    params:
        preset=PRESET,
        benchmarks=at(paths.BENCHMARKS),
        told=lambda wildcards, input: [
            f"--{name}={path}" for name in ("caption", "picture", "table", "rows") for path in input.get(name)
        ],
        code=code_of("figures.summary"),
    shell:
        "python -m figures.summary --output {output:q} --preset {params.preset:q} --template {input.template:q}"
        " --benchmarks {params.benchmarks:q} {params.told:q} > {log:q} 2>&1"


for name, drawn in DRAWINGS.items():

    rule:
        name:
            name
        input:
            **drawn["inputs"],
        output:
            drawn["output"],
        log:
            log_of(os.path.join(name, drawn["of"]).rstrip("/")),
        benchmark:
            benchmark_of(os.path.join(name, drawn["of"]).rstrip("/"))
        wildcard_constraints:
            study=drawn["studies"],
        conda:
            "../../envs/figures.yaml"
        threads: threads_of("render")
        resources:
            **asked("render"),
        params:
            script=drawn["script"],
            stem=lambda wildcards, output: os.path.splitext(output[0])[0],
            preset=PRESET,
            told=told_to(drawn),
            code=code_of(f"figures.{drawn['script']}", methods=drawn["methods"]),
        shell:
            "python -m figures.{params.script} --output {params.stem:q} --preset {params.preset:q} {params.told:q}"
            " > {log:q} 2>&1"
