# The language models: sources -> packed texts and a base model -> fine-tuning -> evaluations -> Figure 4 and passkeys.
# One rule, one subcommand of the package. Without the key `llm` in the preset nothing here is asked for.


wildcard_constraints:
    model="[^/]+",
    text="[^/]+",
    source="[^/]+",
    drawn="[^/]+",
    strategy="[^/]+",
    evaluation="[a-z]\\w*",


# Local: where jobs are sent to a cluster, its nodes may have no internet.
rule llm_fetch:
    output:
        directory(at(llm_paths.SOURCE)),
    log:
        log_of("llm_fetch/{source}"),
    benchmark:
        benchmark_of("llm_fetch/{source}")
    localrule: True
    conda:
        LLM_ENVIRONMENT
    threads: threads_of("data")
    resources:
        **asked("data"),
    params:
        source=lambda wildcards: LLM_SOURCES[wildcards.source],
        code=code_of("resonance.llm.fetch"),
    shell:
        "python -m resonance llm fetch {params.source:q} {output:q} > {log:q} 2>&1"


rule llm_pack:
    input:
        unpack(llm_pack_inputs),
        settings=settings_at(llm_paths, "text_{text}"),
    output:
        at(llm_paths.TEXT),
        at(llm_paths.TOKENS),
    log:
        log_of("llm_pack/{model}/{text}"),
    benchmark:
        benchmark_of("llm_pack/{model}/{text}")
    localrule: PACKS_FROM_HUB
    conda:
        LLM_ENVIRONMENT
    threads: threads_of("data")
    resources:
        **(asked("llm_evaluate") | {"gpu": 0}),
    params:
        folder=at(llm_paths.TEXT_FOLDER),
        options=options_of("base", "source"),
        code=code_at(llm_paths, "pack"),
    shell:
        "python -m resonance llm pack {input.settings:q} {params.folder:q} {params.options:q} > {log:q} 2>&1"


rule llm_base:
    input:
        unpack(llm_base_inputs),
        settings=settings_at(llm_paths, "base"),
    output:
        at(llm_paths.BASE),
    log:
        log_of("llm_base/{model}"),
    benchmark:
        benchmark_of("llm_base/{model}")
    conda:
        LLM_ENVIRONMENT
    threads: lambda wildcards: threads_of("llm_train") if is_made(wildcards.model) else threads_of("data")
    resources:
        **{name: base_asks(name) for name in ("mem_mb", "runtime", "gpu")},
        nodes=1,
    params:
        options=options_of("source", "text"),
        code=code_at(llm_paths, "base", methods=["rope"]),
    shell:
        "python -m resonance llm base {input.settings:q} {output:q} {params.options:q} --threads {threads} > {log:q} 2>&1"


rule llm_finetune:
    input:
        settings=settings_at(llm_paths, "finetune_{strategy}"),
        encoding=at(llm_paths.ENCODING),
        base=llm_base_to_tune,
        text=lambda wildcards: llm_texts(wildcards.model, LLM_SETTINGS.finetuning.text),
    output:
        directory(at(llm_paths.MODEL)),
        at(llm_paths.TRAINING),
        at(llm_paths.RUN),
    log:
        log_of("llm_finetune/{model}/{encoding}/{strategy}"),
    benchmark:
        benchmark_of("llm_finetune/{model}/{encoding}/{strategy}")
    conda:
        LLM_ENVIRONMENT
    threads: threads_of("llm_train")
    resources:
        **asked("llm_train"),
        nodes=1,
        # As PosGen's: no result depends on it.
        checkpoint_every=LLM_SETTINGS.finetuning.checkpoint_every if LLM else 1,
    params:
        launch=(
            f"torchrun --standalone --nproc-per-node {LLM_SETTINGS.finetuning.processes}"
            if LLM and LLM_SETTINGS.finetuning.processes > 1
            else "python"
        ),
        folder=at(llm_paths.RUN_FOLDER),
        text=lambda wildcards, input: os.path.dirname(input.text[0]),
        code=lambda wildcards: code_at(llm_paths, "finetune", methods=methods_of(wildcards.encoding)),
    shell:
        "{params.launch} -m resonance llm finetune {input.settings:q} {input.encoding:q} {input.base:q} {params.text:q}"
        " {params.folder:q} --threads {threads} --checkpoint-every {resources.checkpoint_every} > {log:q} 2>&1"


rule llm_evaluate:
    input:
        unpack(llm_evaluate_inputs),
        settings=settings_at(llm_paths, "evaluate_{evaluation}"),
        encoding=at(llm_paths.ENCODING),
        base=at(llm_paths.BASE),
    output:
        at(llm_paths.MEASURED),
    log:
        log_of("llm_evaluate/{evaluation}/{model}/{encoding}/{strategy}"),
    benchmark:
        benchmark_of("llm_evaluate/{evaluation}/{model}/{encoding}/{strategy}")
    conda:
        LLM_ENVIRONMENT
    threads: threads_of("llm_evaluate")
    resources:
        **asked("llm_evaluate"),
    params:
        options=llm_evaluate_options,
        code=lambda wildcards: code_of(
            *llm_paths.evaluate_code(wildcards.evaluation), methods=methods_of(wildcards.encoding)
        ),
    shell:
        "python -m resonance llm evaluate {wildcards.evaluation:q} {input.settings:q} {input.encoding:q} {input.base:q}"
        " {wildcards.strategy:q} {output:q} {params.options:q} --threads {threads} > {log:q} 2>&1"
