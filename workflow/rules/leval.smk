# L-Eval: questions -> answers -> scores -> Table 2, and a table of its own for every stand-in. Without the key
# `leval` in the preset no model is asked, and Table 2 has the paper's half alone.


localrules:
    leval_settings,


rule leval_settings:
    output:
        at(paths.LEVAL_SETTINGS),
    log:
        log_of("leval_settings/{stage}"),
    wildcard_constraints:
        stage="tasks|answer_[^/]+",
    conda:
        "../../envs/figures.yaml"
    params:
        json=leval_settings_json,
    shell:
        "printf '%s\\n' {params.json:q} > {output:q} 2> {log:q}"


rule leval_tasks:
    input:
        unpack(leval_tasks_inputs),
        settings=at(paths.LEVAL_SETTINGS).replace("{stage}", "tasks"),
    output:
        directory(at(paths.LEVAL_TASKS)),
    log:
        log_of("leval_tasks"),
    benchmark:
        benchmark_of("leval_tasks")
    conda:
        environment("llm")
    threads: need("data", "threads")
    resources:
        mem_mb=need("data", "mem_mb"),
        runtime=need("data", "runtime"),
        gpu=need("data", "gpu"),
    params:
        options=options_of("source"),
        code=code_of("resonance.llm.questions"),
    shell:
        "python -m resonance leval tasks {input.settings:q} {output:q} {params.options:q} > {log:q} 2>&1"


rule leval_answer:
    input:
        unpack(llm_model_inputs),
        settings=at(paths.LEVAL_SETTINGS).replace("{stage}", "answer_{model}"),
        encoding=at(paths.LLM_ENCODING),
        base=at(paths.LLM_BASE),
        tasks=at(paths.LEVAL_TASKS),
    output:
        predictions=directory(at(paths.LEVAL_PREDICTIONS)),
        run=at(paths.LEVAL_RUN),
    log:
        log_of("leval_answer/{model}/{encoding}/{strategy}"),
    benchmark:
        benchmark_of("leval_answer/{model}/{encoding}/{strategy}")
    conda:
        environment("llm")
    threads: need("llm_evaluate", "threads")
    resources:
        mem_mb=need("llm_evaluate", "mem_mb"),
        runtime=need("llm_evaluate", "runtime"),
        gpu=need("llm_evaluate", "gpu"),
    params:
        journal=at(paths.LEVAL_JOURNAL),
        options=options_of("model"),
        code=code_of("resonance.llm.models", "resonance.llm.answering"),
    shell:
        "python -m resonance leval answer {input.settings:q} {input.encoding:q} {input.base:q} {wildcards.strategy:q}"
        " {input.tasks:q} {output.predictions:q} {output.run:q} --journal {params.journal:q} {params.options:q}"
        " --threads {threads} > {log:q} 2>&1"


rule leval_score:
    input:
        predictions=at(paths.LEVAL_PREDICTIONS),
        run=at(paths.LEVAL_RUN),
    output:
        at(paths.LEVAL_SCORES),
    log:
        log_of("leval_score/{model}/{encoding}/{strategy}"),
    benchmark:
        benchmark_of("leval_score/{model}/{encoding}/{strategy}")
    conda:
        environment("llm")
    threads: need("render", "threads")
    resources:
        mem_mb=need("render", "mem_mb"),
        runtime=need("render", "runtime"),
        gpu=need("render", "gpu"),
    params:
        code=code_of("resonance.llm.leval"),
    shell:
        "python -m resonance leval score {input.predictions:q} --model {wildcards.model:q}"
        " --encoding {wildcards.encoding:q} --strategy {wildcards.strategy:q} --record {input.run:q} --output {output:q}"
        " > {log:q} 2>&1"


rule table2_one:
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
        scores=leval_scores([name for name in LEVAL.models if name not in LEVAL_STAND_INS] if LEVAL else []),
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
        scores=lambda wildcards, input: [f"--scores={path}" for path in input.scores],
    shell:
        "python -m figures.table2_leval --output {params.stem:q} --preset {params.preset:q} --published {input.published:q}"
        " {params.scores:q} > {log:q} 2>&1"


rule table2_stand_in:
    input:
        script="figures/table2_stand_in.py",
        shared=[
            "figures/leval.py",
            "figures/style.py",
            "figures/style.mplstyle",
            "figures/inputs.py",
            "figures/tables.py",
        ],
        scores=lambda wildcards: leval_scores([wildcards.model]),
    output:
        report(
            at(paths.TABLE2_STAND_IN) + ".html",
            caption="../report/table2_stand_in.rst",
            category="Tables",
            labels={"table": "Table 2, stand-in", "protocol": "{model}"},
        ),
        multiext(at(paths.TABLE2_STAND_IN), ".csv", "_pairs.csv", ".md", ".tex"),
    log:
        log_of("table2_stand_in/{model}"),
    benchmark:
        benchmark_of("table2_stand_in/{model}")
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
        title=lambda wildcards: LLM.models[wildcards.model].title,
        scores=lambda wildcards, input: [f"--scores={path}" for path in input.scores],
    shell:
        "python -m figures.table2_stand_in --output {params.stem:q} --preset {params.preset:q} --title {params.title:q}"
        " {params.scores:q} > {log:q} 2>&1"
