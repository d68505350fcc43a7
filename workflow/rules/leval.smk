# L-Eval: questions -> answers -> scores -> Table 2, and a table of its own for every stand-in. Without the key
# `leval` in the preset no model is asked, and Table 2 has the paper's half alone.


rule leval_tasks:
    input:
        unpack(leval_tasks_inputs),
        settings=settings_at(leval_paths, "tasks"),
    output:
        directory(at(leval_paths.TASKS)),
    log:
        log_of("leval_tasks"),
    benchmark:
        benchmark_of("leval_tasks")
    localrule: bool(LEVAL) and LEVAL.settings.source.startswith("hf:")
    conda:
        LLM_ENVIRONMENT
    threads: threads_of("data")
    resources:
        **asked("data"),
    params:
        options=options_of("source"),
        code=code_at(leval_paths, "tasks"),
    shell:
        "python -m resonance leval tasks {input.settings:q} {output:q} {params.options:q} > {log:q} 2>&1"


rule leval_answer:
    input:
        unpack(llm_model_inputs),
        settings=settings_at(leval_paths, "answer_{model}"),
        encoding=at(llm_paths.ENCODING),
        base=at(llm_paths.BASE),
        tasks=at(leval_paths.TASKS),
    output:
        predictions=directory(at(leval_paths.PREDICTIONS)),
        run=at(leval_paths.RUN),
    log:
        log_of("leval_answer/{model}/{encoding}/{strategy}"),
    benchmark:
        benchmark_of("leval_answer/{model}/{encoding}/{strategy}")
    conda:
        LLM_ENVIRONMENT
    threads: threads_of("llm_evaluate")
    resources:
        **asked("llm_evaluate"),
    params:
        journal=at(leval_paths.JOURNAL),
        options=options_of("model"),
        code=lambda wildcards: code_at(leval_paths, "answer", methods=methods_of(wildcards.encoding)),
    shell:
        "python -m resonance leval answer {input.settings:q} {input.encoding:q} {input.base:q} {wildcards.strategy:q}"
        " {input.tasks:q} {output.predictions:q} {output.run:q} --journal {params.journal:q} {params.options:q}"
        " --threads {threads} > {log:q} 2>&1"


rule leval_score:
    input:
        predictions=at(leval_paths.PREDICTIONS),
        run=at(leval_paths.RUN),
    output:
        at(leval_paths.SCORES),
    log:
        log_of("leval_score/{model}/{encoding}/{strategy}"),
    benchmark:
        benchmark_of("leval_score/{model}/{encoding}/{strategy}")
    conda:
        LLM_ENVIRONMENT
    threads: threads_of("render")
    resources:
        **asked("render"),
    params:
        code=code_at(leval_paths, "score"),
    shell:
        "python -m resonance leval score {input.predictions:q} --model {wildcards.model:q}"
        " --encoding {wildcards.encoding:q} --strategy {wildcards.strategy:q} --record {input.run:q} --output {output:q}"
        " > {log:q} 2>&1"
