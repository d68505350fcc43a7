# Tables and figures of the rows that the repository keeps (results-published/), by the scripts that make them of a
# run: hours of training are not run again. Only what needs none, the baselines, is.

# Files of measured rows: STUDY_PART.parquet.
KEPT = sorted(path.stem for path in Path(workflow.basedir, at(paths.KEPT)).glob("*.parquet"))


def kept(study):
    """A study's files."""
    return [f"{at(paths.KEPT)}/{stem}.parquet" for stem in KEPT if stem.split("_")[0] == study]


def published(name):
    """A file drawn of the kept rows."""
    return f"{at(paths.PUBLISHED)}/{name}"


def published_files(wildcards):
    """Every table, and the figures of those that have one."""
    if not KEPT:
        raise WorkflowError(f"results-published/ keeps nothing of preset {PRESET}; ask for one that it names")
    whole = [study for study, (tables, _) in STUDY_STEMS.items() if study in tables and kept(study)]
    stems = whole + [stem for stem in KEPT if stem.split("_")[0] not in whole]
    return expand(published("tables/{stem}.{kind}"), stem=stems, kind=TABLE_KINDS) + expand(
        published("figures/{stem}.{kind}"), stem=whole, kind=FIGURE_KINDS
    )


use rule study_table as published_study_table with:
    input:
        published="config/published.yaml",
        evaluation=[f"{at(paths.KEPT)}/{{study}}_{{protocol}}.parquet"],
        baseline=baselines_of_study,
        kept=[],
    output:
        multiext(published("tables/{study}_{protocol}"), ".html", ".csv", "_pairs.csv", ".md", ".tex"),
    log:
        log_of("published_study_table/{study}/{protocol}"),
    benchmark:
        benchmark_of("published_study_table/{study}/{protocol}")


use rule rounding_table as published_rounding_table with:
    input:
        study=kept("rounding"),
    output:
        multiext(published("tables/rounding"), ".html", ".csv", ".md", ".tex"),
        multiext(published("figures/rounding"), ".png", ".pdf", ".svg"),
    log:
        log_of("published_rounding_table"),
    benchmark:
        benchmark_of("published_rounding_table")


use rule ablation_table as published_ablation_table with:
    input:
        study=kept("ablation"),
    output:
        multiext(published("tables/ablation"), ".html", ".csv", ".md", ".tex"),
        multiext(published("figures/ablation"), ".png", ".pdf", ".svg"),
    log:
        log_of("published_ablation_table"),
    benchmark:
        benchmark_of("published_ablation_table")
