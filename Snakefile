# The whole reproduction as one graph: config -> settings -> data -> training -> evaluation -> tables
# and figures. `snakemake` runs the laptop preset, `snakemake --config preset=paper` the paper's.
from snakemake.utils import min_version

min_version("9.0")


include: "workflow/rules/common.smk"
include: "workflow/rules/posgen_names.smk"
include: "workflow/rules/posgen.smk"
include: "workflow/rules/llm_names.smk"
include: "workflow/rules/llm.smk"
include: "workflow/rules/leval_names.smk"
include: "workflow/rules/leval.smk"
include: "workflow/rules/settings.smk"
include: "workflow/rules/figures_names.smk"
include: "workflow/rules/figures.smk"


report: "workflow/report/workflow.rst"


# What may be asked for by name: one stage at a time, and the studies around Table 1, which `all` leaves out since they
# take hours where it takes minutes.
STUDY_TARGETS = [name for name in STUDY_STEMS if name != "table1"]
TARGETS = {
    "tables": lambda: TABLES,
    "figures": lambda: FIGURES,
    "posgen_data": lambda: posgen_data(posgen_paths.SEQUENCES, split=SPLITS),
    "posgen_train": lambda: posgen_trained(posgen_paths.MODEL, "table1"),
    "table1": lambda: study_tables("table1"),
    "figure3": lambda: [path for path in study_figures("table1") if "fig3_" in path],
    "finetune": llm_finetuned,
    "perplexity": lambda: [p for model in llm_drawn("perplexity").values() for p in llm_measured("perplexity", model)],
    "figure4": lambda: PERPLEXITY_FILES,
    "passkey": lambda: PASSKEY_FILES,
    "leval": lambda: leval_scores(),
    "table2": lambda: TABLE2_FILES,
    "studies": lambda: [p for study in STUDY_TARGETS for p in study_tables(study) + study_figures(study)],
    # What the repository's own measured rows show, drawn in seconds.
    "published": lambda: published_files,
    **{name: lambda name=name: study_tables(name) + study_figures(name) for name in STUDY_TARGETS},
}


rule all:
    default_target: True
    input:
        TABLES,
        FIGURES,
        at(paths.SUMMARY),
    localrule: True


for target, files in TARGETS.items():

    rule:
        name:
            target
        input:
            files() or nothing_of(target),
        localrule: True
