# The whole reproduction as one graph: config -> settings -> data -> training -> evaluation -> tables
# and figures. `snakemake` runs the laptop preset, `snakemake --config preset=paper` the paper's.
from snakemake.utils import min_version

min_version("9.0")


include: "workflow/rules/common.smk"
include: "workflow/rules/posgen.smk"
include: "workflow/rules/llm_names.smk"
include: "workflow/rules/llm.smk"
include: "workflow/rules/leval.smk"
include: "workflow/rules/paper.smk"


report: "workflow/report/workflow.rst"


localrules:
    all,
    posgen_data_all,
    posgen_train_all,
    tables,
    figures,


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


rule posgen_data_all:
    input:
        posgen_files(paths.SEQUENCES, split=SPLITS),


rule posgen_train_all:
    input:
        posgen_trained(paths.MODEL),
