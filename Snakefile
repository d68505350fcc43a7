# The whole reproduction as one graph: config -> settings -> data -> training -> evaluation -> tables
# and figures. `snakemake` runs the laptop preset, `snakemake --config preset=paper` the paper's.
from snakemake.utils import min_version

min_version("9.0")


include: "workflow/rules/common.smk"
include: "workflow/rules/posgen.smk"
include: "workflow/rules/llm_names.smk"
include: "workflow/rules/llm.smk"
include: "workflow/rules/leval_names.smk"
include: "workflow/rules/leval.smk"
include: "workflow/rules/paper.smk"


report: "workflow/report/workflow.rst"


localrules:
    all,
    tables,
    figures,
    extended,
    keyed,
    rounding,
    ablation,
    studies,
    posgen_data_all,
    posgen_train_all,


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


rule posgen_data_all:
    input:
        posgen_data(paths.SEQUENCES, split=SPLITS),


rule posgen_train_all:
    input:
        posgen_trained(paths.MODEL, "table1"),
