# Every table and figure: parquet in; csv, md, tex, html, pdf, svg, png out. What each is stands in figures_names.smk.


wildcard_constraints:
    study="|".join(STUDY_STEMS),


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
