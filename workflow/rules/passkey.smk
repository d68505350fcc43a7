# Passkey retrieval, an extra beside perplexity (L14): asked of the models that `llm.passkey.lengths` names.

PASSKEY_DRAWN = {drawn: name for drawn, name in LLM_DRAWN.items() if LLM.passkey and name in LLM.passkey.lengths}
PASSKEY_FIGURES = expand(at(paths.PASSKEY) + ".{kind}", drawn=PASSKEY_DRAWN, kind=["pdf", "svg", "png"])
PASSKEY_TABLES = expand(
    at(paths.PASSKEY_TABLE) + "{kind}", drawn=PASSKEY_DRAWN, kind=[".csv", "_pairs.csv", ".md", ".tex", ".html"]
)
FIGURES += PASSKEY_FIGURES
TABLES += PASSKEY_TABLES


rule llm_passkey:
    input:
        unpack(llm_model_inputs),
        settings=at(paths.LLM_SETTINGS).replace("{stage}", "passkey"),
        encoding=at(paths.LLM_ENCODING),
        base=at(paths.LLM_BASE),
    output:
        at(paths.LLM_PASSKEY),
    log:
        log_of("llm_passkey/{model}/{encoding}/{strategy}"),
    benchmark:
        benchmark_of("llm_passkey/{model}/{encoding}/{strategy}")
    conda:
        environment("llm")
    threads: need("llm_evaluate", "threads")
    resources:
        mem_mb=need("llm_evaluate", "mem_mb"),
        runtime=need("llm_evaluate", "runtime"),
        gpu=need("llm_evaluate", "gpu"),
    params:
        options=options_of("model"),
        code=code_of("resonance.llm.models", "resonance.llm.passkey"),
    shell:
        "python -m resonance llm passkey {input.settings:q} {input.encoding:q} {input.base:q} {wildcards.strategy:q}"
        " {output:q} {params.options:q} --threads {threads} > {log:q} 2>&1"


rule passkey_figure:
    input:
        script="figures/passkey.py",
        shared=["figures/style.py", "figures/style.mplstyle", "figures/inputs.py", "figures/tables.py"],
        retrievals=lambda wildcards: llm_measured(paths.LLM_PASSKEY, PASSKEY_DRAWN[wildcards.drawn]),
    output:
        report(
            at(paths.PASSKEY) + ".png",
            caption="../report/passkey.rst",
            category="Figures",
            labels={"figure": "Passkey retrieval", "protocol": "{drawn}"},
        ),
        multiext(at(paths.PASSKEY), ".pdf", ".svg"),
        report(
            at(paths.PASSKEY_TABLE) + ".html",
            caption="../report/passkey.rst",
            category="Tables",
            labels={"table": "Passkey retrieval", "protocol": "{drawn}"},
        ),
        multiext(at(paths.PASSKEY_TABLE), ".csv", "_pairs.csv", ".md", ".tex"),
    log:
        log_of("passkey_figure/{drawn}"),
    benchmark:
        benchmark_of("passkey_figure/{drawn}")
    conda:
        "../../envs/figures.yaml"
    threads: need("render", "threads")
    resources:
        mem_mb=need("render", "mem_mb"),
        runtime=need("render", "runtime"),
        gpu=need("render", "gpu"),
    params:
        stem=stem_of_output,
        table=lambda wildcards: at(paths.PASSKEY_TABLE).format(drawn=wildcards.drawn),
        model=llm_model_options,
        preset=PRESET,
        retrievals=lambda wildcards, input: [f"--passkey={path}" for path in input.retrievals],
    shell:
        "python -m figures.passkey --output {params.stem:q} --table {params.table:q} --preset {params.preset:q}"
        " {params.model:q} {params.retrievals:q} > {log:q} 2>&1"
