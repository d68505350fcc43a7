# The whole reproduction as one graph: config -> settings -> data -> training -> evaluation -> tables
# and figures. `snakemake` runs the laptop preset, `snakemake --config preset=paper` the paper's.
from snakemake.utils import min_version

min_version("9.0")


include: "workflow/rules/common.smk"
include: "workflow/rules/posgen.smk"
include: "workflow/rules/llm_names.smk"
include: "workflow/rules/llm.smk"
include: "workflow/rules/passkey.smk"
include: "workflow/rules/leval_names.smk"
include: "workflow/rules/leval.smk"
include: "workflow/rules/paper.smk"
include: "workflow/rules/published.smk"


report: "workflow/report/workflow.rst"


localrules:
    all,
    tables,
    figures,
    posgen_data,
    posgen_train,
    table1,
    figure3,
    finetune,
    perplexity,
    figure4,
    passkey,
    leval,
    table2,
    extended,
    keyed,
    rounding,
    ablation,
    studies,
    published,


rule all:
    default_target: True
    input:
        TABLES,
        FIGURES,


rule tables:
    input:
        TABLES,


rule figures:
    input:
        FIGURES,


# One stage at a time: what it makes, and what that needs.
rule posgen_data:
    input:
        posgen_data(paths.SEQUENCES, split=SPLITS),


rule posgen_train:
    input:
        posgen_trained(paths.MODEL, "table1"),


rule table1:
    input:
        study_tables("table1"),


rule figure3:
    input:
        [path for path in FIGURES if "fig3_" in path],


rule finetune:
    input:
        llm_finetuned(),


rule perplexity:
    input:
        [path for model in LLM_DRAWN.values() for path in llm_measured(paths.LLM_PERPLEXITY, model)],


rule figure4:
    input:
        expand(at(paths.FIGURE4) + ".png", drawn=LLM_DRAWN),


rule passkey:
    input:
        PASSKEY_TABLES,
        PASSKEY_FIGURES,


rule leval:
    input:
        leval_scores(LEVAL.models if LEVAL else []),


rule table2:
    input:
        TABLE2_FILES,


# The studies around Table 1: hours where `all` takes minutes, so each is asked for by name.
rule extended:
    input:
        study_tables("extended"),


rule keyed:
    input:
        study_tables("keyed"),
        study_figures("keyed"),


rule rounding:
    input:
        study_tables("rounding"),
        study_figures("rounding"),


rule ablation:
    input:
        study_tables("ablation"),
        study_figures("ablation"),


rule studies:
    input:
        rules.extended.input,
        rules.keyed.input,
        rules.rounding.input,
        rules.ablation.input,


# What the repository's own measured rows show, drawn in seconds.
rule published:
    input:
        published_files,
