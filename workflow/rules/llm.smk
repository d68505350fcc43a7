# The language models: sources -> packed texts and a base model -> fine-tuning -> perplexity -> Figure 4.
# One rule, one subcommand of the package. Without the key `llm` in the preset nothing here is asked for.


localrules:
    llm_settings,
    llm_encoding,


rule llm_settings:
    output:
        at(paths.LLM_SETTINGS),
    log:
        log_of("llm_settings/{model}/{stage}"),
    conda:
        "../../envs/figures.yaml"
    params:
        json=llm_settings_json,
    shell:
        "printf '%s\\n' {params.json:q} > {output:q} 2> {log:q}"


rule llm_encoding:
    output:
        at(paths.LLM_ENCODING),
    log:
        log_of("llm_encoding/{model}/{encoding}"),
    conda:
        "../../envs/figures.yaml"
    params:
        json=lambda wildcards: CONFIG.llm_spec(wildcards.model, wildcards.encoding).to_json(),
    shell:
        "printf '%s\\n' {params.json:q} > {output:q} 2> {log:q}"


rule llm_fetch:
    output:
        directory(at(paths.LLM_SOURCE)),
    log:
        log_of("llm_fetch/{source}"),
    benchmark:
        benchmark_of("llm_fetch/{source}")
    conda:
        environment("llm")
    threads: need("data", "threads")
    resources:
        mem_mb=need("data", "mem_mb"),
        runtime=need("data", "runtime"),
        gpu=need("data", "gpu"),
    params:
        source=lambda wildcards: LLM_SOURCES[wildcards.source],
        code=code_of("resonance.llm.fetch"),
    shell:
        "python -m resonance llm fetch {params.source:q} {output:q} > {log:q} 2>&1"


rule llm_pack:
    input:
        unpack(llm_pack_inputs),
        settings=at(paths.LLM_SETTINGS).replace("{stage}", "text_{text}"),
    output:
        at(paths.LLM_TEXT),
        at(paths.LLM_TOKENS),
    log:
        log_of("llm_pack/{model}/{text}"),
    benchmark:
        benchmark_of("llm_pack/{model}/{text}")
    conda:
        environment("llm")
    threads: need("data", "threads")
    resources:
        mem_mb=need("llm_evaluate", "mem_mb"),
        runtime=need("llm_evaluate", "runtime"),
        gpu=0,
    params:
        folder=at(paths.LLM_TEXT_FOLDER),
        options=options_of("base", "source"),
        code=code_of("resonance.llm.text"),
    shell:
        "python -m resonance llm pack {input.settings:q} {params.folder:q} {params.options:q} > {log:q} 2>&1"


rule llm_base:
    input:
        unpack(llm_base_inputs),
        settings=at(paths.LLM_SETTINGS).replace("{stage}", "base"),
    output:
        at(paths.LLM_BASE),
    log:
        log_of("llm_base/{model}"),
    benchmark:
        benchmark_of("llm_base/{model}")
    conda:
        environment("llm")
    threads: need("llm_train", "threads")
    resources:
        mem_mb=need("llm_train", "mem_mb"),
        runtime=need("llm_train", "runtime"),
        nodes=1,
        gpu=lambda wildcards: need("llm_train", "gpu") if LLM.models[wildcards.model].tiny else 0,
    params:
        options=options_of("source", "text"),
        code=code_of("resonance.llm.models", "resonance.llm.finetune", "resonance.encoding.hf"),
    shell:
        "python -m resonance llm base {input.settings:q} {output:q} {params.options:q} --threads {threads} > {log:q} 2>&1"


rule llm_finetune:
    input:
        settings=at(paths.LLM_SETTINGS).replace("{stage}", "finetune_{strategy}"),
        encoding=at(paths.LLM_ENCODING),
        base=at(paths.LLM_BASE),
        text=lambda wildcards: at(paths.LLM_TEXT).format(model=wildcards.model, text=LLM.finetuning.text),
    output:
        directory(at(paths.LLM_MODEL)),
        at(paths.LLM_TRAINING),
        at(paths.LLM_RUN),
    log:
        log_of("llm_finetune/{model}/{encoding}/{strategy}"),
    benchmark:
        benchmark_of("llm_finetune/{model}/{encoding}/{strategy}")
    conda:
        environment("llm")
    threads: need("llm_train", "threads")
    resources:
        mem_mb=need("llm_train", "mem_mb"),
        runtime=need("llm_train", "runtime"),
        nodes=1,
        gpu=need("llm_train", "gpu"),
    params:
        launch=LLM_LAUNCH,
        folder=at(paths.LLM_RUN_FOLDER),
        text=parent_of("text"),
        code=code_of("resonance.llm.models", "resonance.llm.finetune", "resonance.encoding.hf"),
    shell:
        "{params.launch} -m resonance llm finetune {input.settings:q} {input.encoding:q} {input.base:q} {params.text:q}"
        " {params.folder:q} --threads {threads} > {log:q} 2>&1"


rule llm_evaluate:
    input:
        unpack(llm_model_inputs),
        settings=at(paths.LLM_SETTINGS).replace("{stage}", "perplexity"),
        encoding=at(paths.LLM_ENCODING),
        base=at(paths.LLM_BASE),
        train_text=lambda wildcards: at(paths.LLM_TEXT).format(model=wildcards.model, text=LLM.finetuning.text),
        corpora=lambda wildcards: expand(at(paths.LLM_TEXT), model=wildcards.model, text=LLM.perplexity.corpora),
    output:
        at(paths.LLM_PERPLEXITY),
    log:
        log_of("llm_evaluate/{model}/{encoding}/{strategy}"),
    benchmark:
        benchmark_of("llm_evaluate/{model}/{encoding}/{strategy}")
    conda:
        environment("llm")
    threads: need("llm_evaluate", "threads")
    resources:
        mem_mb=need("llm_evaluate", "mem_mb"),
        runtime=need("llm_evaluate", "runtime"),
        gpu=need("llm_evaluate", "gpu"),
    params:
        train_text=parent_of("train_text"),
        corpora=lambda wildcards, input: [
            f"--corpus={name}={os.path.dirname(path)}" for name, path in zip(LLM.perplexity.corpora, input.corpora)
        ],
        options=options_of("model"),
        code=code_of("resonance.llm.models", "resonance.llm.perplexity"),
    shell:
        "python -m resonance llm evaluate {input.settings:q} {input.encoding:q} {input.base:q} {wildcards.strategy:q}"
        " {output:q} --train-text {params.train_text:q} {params.corpora:q} {params.options:q} --threads {threads}"
        " > {log:q} 2>&1"


rule figure4_one:
    input:
        script="figures/fig4_perplexity.py",
        shared=["figures/style.py", "figures/style.mplstyle", "figures/inputs.py", "figures/tables.py"],
        perplexities=lambda wildcards: llm_measured(paths.LLM_PERPLEXITY, LLM_DRAWN[wildcards.drawn]),
    output:
        report(
            at(paths.FIGURE4) + ".png",
            caption="../report/fig4.rst",
            category="Figures",
            labels={"figure": "Figure 4", "protocol": "{drawn}"},
        ),
        multiext(at(paths.FIGURE4), ".pdf", ".svg"),
        report(
            at(paths.FIGURE4_TABLE) + ".html",
            caption="../report/fig4.rst",
            category="Tables",
            labels={"table": "Figure 4's numbers", "protocol": "{drawn}"},
        ),
        multiext(at(paths.FIGURE4_TABLE), ".csv", "_pairs.csv", ".md", ".tex"),
    log:
        log_of("figure4/{drawn}"),
    benchmark:
        benchmark_of("figure4/{drawn}")
    conda:
        "../../envs/figures.yaml"
    threads: need("render", "threads")
    resources:
        mem_mb=need("render", "mem_mb"),
        runtime=need("render", "runtime"),
        gpu=need("render", "gpu"),
    params:
        stem=stem_of_output,
        table=lambda wildcards: at(paths.FIGURE4_TABLE).format(drawn=wildcards.drawn),
        model=llm_model_options,
        preset=PRESET,
        perplexities=lambda wildcards, input: [f"--perplexity={path}" for path in input.perplexities],
    shell:
        "python -m figures.fig4_perplexity --output {params.stem:q} --table {params.table:q} --preset {params.preset:q}"
        " {params.model:q} {params.perplexities:q} > {log:q} 2>&1"
