# What each stage depends on, and every encoding, as a file of its own: it changes if and only if they do, and then its
# stage is run again. By rule: the file, the wildcards of its log, and the JSON that it holds.
WRITTEN = {
    "posgen_settings": (posgen_paths.SETTINGS, "{protocol}/{task}/{stage}", settings_json),
    "posgen_encoding": (
        posgen_paths.ENCODING,
        "{protocol}/{encoding}",
        lambda wildcards: POSGEN.spec(wildcards.protocol, wildcards.encoding).to_json(),
    ),
    "llm_settings": (llm_paths.SETTINGS, "{model}/{stage}", llm_settings_json),
    "llm_encoding": (
        llm_paths.ENCODING,
        "{model}/{encoding}",
        lambda wildcards: LLM.spec(wildcards.model, wildcards.encoding).to_json(),
    ),
    "leval_settings": (leval_paths.SETTINGS, "{stage}", leval_settings_json),
}

for name, (output, of, json) in WRITTEN.items():

    rule:
        name:
            name
        output:
            at(output),
        log:
            log_of(f"{name}/{of}"),
        localrule: True
        conda:
            DRAWING
        params:
            json=json,
        shell:
            "printf '%s\\n' {params.json:q} > {output:q} 2> {log:q}"
