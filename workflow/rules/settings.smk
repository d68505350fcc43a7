# What each stage depends on, and every encoding, as a file of its own: it changes if and only if they do, and then its
# stage is run again. By rule: the file, and the wildcards of its log.
WRITTEN = {
    "posgen_settings": (posgen_paths.SETTINGS, "{protocol}/{task}/{stage}"),
    "posgen_encoding": (posgen_paths.ENCODING, "{protocol}/{encoding}"),
    "llm_settings": (llm_paths.SETTINGS, "{model}/{stage}"),
    "llm_encoding": (llm_paths.ENCODING, "{model}/{encoding}"),
    "leval_settings": (leval_paths.SETTINGS, "{stage}"),
}


def written_by(rule):
    return lambda wildcards: CONFIG.written(rule, dict(wildcards))


for name, (output, of) in WRITTEN.items():

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
            json=written_by(name),
        shell:
            "printf '%s\\n' {params.json:q} > {output:q} 2> {log:q}"
