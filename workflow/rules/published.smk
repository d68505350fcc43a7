# Tables and figures of the rows that the repository keeps (results-published/), by the scripts that make them of a
# run: hours of training are not run again. Only what needs none, the baselines, is.


use rule study_table as published_study_table with:
    input:
        script="figures/table1_posgen.py",
        shared=rules.study_table.input.shared,
        published="config/published.yaml",
        evaluations=[f"{at(paths.KEPT)}/{{study}}_{{protocol}}.parquet"],
        baselines=baselines_of_study,
    output:
        published("tables/{study}_{protocol}.html"),
        multiext(published("tables/{study}_{protocol}"), ".csv", "_pairs.csv", ".md", ".tex"),
    log:
        log_of("published_study_table/{study}/{protocol}"),
    benchmark:
        benchmark_of("published_study_table/{study}/{protocol}")


use rule rounding_table as published_rounding_table with:
    input:
        script="figures/rounding.py",
        shared=rules.rounding_table.input.shared,
        study=kept("rounding"),
        encodings="config/encodings.yaml",
    output:
        published("tables/rounding.html"),
        published("figures/rounding.png"),
        multiext(published("tables/rounding"), ".csv", ".md", ".tex"),
        multiext(published("figures/rounding"), ".pdf", ".svg"),
    log:
        log_of("published_rounding_table"),
    benchmark:
        benchmark_of("published_rounding_table")


use rule ablation_table as published_ablation_table with:
    input:
        script="figures/ablation.py",
        shared=rules.ablation_table.input.shared,
        study=kept("ablation"),
    output:
        published("tables/ablation.html"),
        published("figures/ablation.png"),
        multiext(published("tables/ablation"), ".csv", ".md", ".tex"),
        multiext(published("figures/ablation"), ".pdf", ".svg"),
    log:
        log_of("published_ablation_table"),
    benchmark:
        benchmark_of("published_ablation_table")
