# The registry of tables and figures, for figures.smk. One entry of DRAWINGS, one rule: a script of figures/ that is told
# where to write, of which preset, the files of its inputs (--NAME=path), and what the entry adds.

# Of every study; {protocol}: one for each of its protocols.
STUDY_STEMS = {
    "table1": (["table1_{protocol}"], ["fig3_validation_loss_{protocol}", "shortcuts_table1_{protocol}"]),
    "five_seeds": (["five_seeds_{protocol}"], []),
    "extended": (["extended_{protocol}"], []),
    "keyed": (["keyed_{protocol}"], ["shortcuts_keyed_{protocol}"]),
} | {
    study: ([study], [study])
    for study in ("rounding", "ablation", "ends", "aliases", "leaks", "falls", "lengths", "fastest")
}
# Snakemake's report lists its categories by the alphabet.
TABLES_FIRST, FIGURES_SECOND = "1. Tables", "2. Figures"
# Files of measured rows that the repository keeps, STUDY_PART.parquet: the same scripts draw them, and hours of
# training are not run again.
RANKING = "results-published/ranking.parquet"
LEADERBOARD_KINDS = [*TABLE_KINDS, "png", "svg"]
KEPT = sorted(path.stem for path in Path(workflow.basedir, at(paths.KEPT)).glob("*.parquet"))
# The same of a language model's evaluation: a folder EVALUATION_MODEL, a file a line of its figure.
KEPT_LINES = {
    folder.name: [f"{at(paths.KEPT)}/{folder.name}/{path.name}" for path in sorted(folder.glob("*.parquet"))]
    for folder in sorted(Path(workflow.basedir, at(paths.KEPT)).glob("*_*/"))
}


def labels_of(kind, title, of):
    """What the report says of a table or figure: its title, and the protocol or model that it is of."""

    def labels(wildcards):
        said = {name: text.format(**wildcards).replace("_", " ") for name, text in {kind: title, **of}.items()}
        return said | {kind: said[kind].replace("table1", "Table 1")}

    return labels


def caption_at(name):
    """A caption's file, as `report` wants it. Snakemake itself misses one only when a report is made, after the runs."""
    if not Path(workflow.basedir, f"workflow/report/{name}.rst").is_file():
        raise WorkflowError(f"workflow/report/{name}.rst must be there, the report's caption; write it")
    return f"../report/{name}.rst"


def table_at(stem, caption, title, kinds=PAIRED_KINDS, **of):
    """The files of a table, its page in the report; without a caption it is in none."""
    page = f"{stem}.html"
    if caption:
        labels = labels_of("table", title, of)
        page = report(page, caption=caption_at(caption), category=TABLES_FIRST, labels=labels)
    return [page, *(f"{stem}{kind}" for kind in kinds if kind != ".html")]


def figure_at(stem, caption, title, **of):
    """The files of a figure, its picture in the report."""
    picture = f"{stem}.png"
    if caption:
        labels = labels_of("figure", title, of)
        picture = report(picture, caption=caption_at(caption), category=FIGURES_SECOND, labels=labels)
    return [picture, f"{stem}.pdf", f"{stem}.svg"]


def figure(name):
    return at(f"{paths.FIGURES}/{name}")


def table(name):
    return at(f"{paths.TABLES}/{name}")


def published(name):
    """A file drawn of the kept rows."""
    return f"{at(paths.PUBLISHED)}/{name}"


def kept(study):
    """A study's kept files."""
    return [f"{at(paths.KEPT)}/{stem}.parquet" for stem in KEPT if stem.split("_")[0] == study]


def kept_beside(wildcards):
    """Table 1's kept rows of this preset, shown beside a run's own."""
    stem = f"table1_{wildcards.protocol}"
    return [f"{at(paths.KEPT)}/{stem}.parquet"] if wildcards.study == "table1" and stem in KEPT else []


def study_files(study, place, kinds, stems):
    """The files of some stems of a study, none where the preset leaves it out."""
    if study not in STUDIES:
        return []
    return expand([place(f"{stem}.{{kind}}") for stem in stems], protocol=STUDIES[study].protocols, kind=kinds)


def study_tables(study):
    return study_files(study, table, TABLE_KINDS, STUDY_STEMS[study][0])


def study_figures(study):
    return study_files(study, figure, FIGURE_KINDS, STUDY_STEMS[study][1])


def published_files(wildcards):
    """Every table of the kept rows, and the figures of those that have one."""
    if not (KEPT or KEPT_LINES):
        raise WorkflowError(f"results-published/ keeps nothing of preset {PRESET}; ask for one that it names")
    whole = [study for study, (tables, _) in STUDY_STEMS.items() if study in tables and kept(study)]
    stems = whole + [stem for stem in KEPT if stem.split("_")[0] not in whole]
    for stem in stems[len(whole) :]:
        if (protocol := stem.partition("_")[2]) not in POSGEN.protocols:
            raise WorkflowError(
                f"results-published/{PRESET}/{stem}.parquet is of protocol {protocol}, which preset {PRESET} does not "
                "name, so there is no table to draw it in; resonance trace and docs/ read it"
            )
    drawn = whole + (["verdict"] if published_cells(wildcards) else [])
    lines = [
        f"{script}_{name}"
        for script, evaluation in (("fig4_perplexity", "perplexity"), ("passkey", "passkey"))
        for name, model in llm_drawn(evaluation).items()
        if f"{evaluation}_{model}" in KEPT_LINES
    ]
    return (
        expand(published("tables/{stem}.{kind}"), stem=stems + lines, kind=TABLE_KINDS)
        + expand(published("figures/{stem}.{kind}"), stem=drawn + lines, kind=FIGURE_KINDS)
        + expand(published("tables/leaderboard.{kind}"), kind=LEADERBOARD_KINDS)
    )


def study_cells(wildcards):
    """Table 1 for machines, of every protocol."""
    return [path for path in study_tables("table1") if path.endswith(".csv")]


def published_cells(wildcards):
    stems = [f"table1_{protocol}" for protocol in STUDIES["table1"].protocols]
    return [published(f"tables/{stem}.csv") for stem in stems if stem in KEPT]


def evaluations_of_study(wildcards):
    return posgen_evaluations(wildcards.study, wildcards.protocol)


def baselines_of_study(wildcards):
    """What needs no training, for every task of a study."""
    return expand(at(posgen_paths.BASELINE), protocol=wildcards.protocol, task=STUDIES[wildcards.study].tasks)


def told_of_protocol(wildcards):
    return [f"--protocol={wildcards.protocol}"]


def told_of_study(wildcards):
    """The study, laid out like Table 1, and its rows."""
    layout = "table1" if wildcards.study == "five_seeds" else wildcards.study
    rows = [f"--encoding={name}" for name in STUDIES[wildcards.study].encodings]
    return [f"--study={layout}", f"--protocol={wildcards.protocol}", *rows]


def told_of_model(evaluation, numbers):
    """Where the table of a language model's figure goes, and which model it is."""

    def told(wildcards):
        name = llm_drawn(evaluation)[wildcards.drawn]
        model = LLM_SETTINGS.models[name]
        named = [f"--title={model.title}", "--stand-in" if model.stand_in else "--no-stand-in"]
        if evaluation == "perplexity":  # whose lines are called by them
            named += [f"--strategy={told}" for told in LLM.strategies_told(name)]
        return [f"--table={at(numbers).format(drawn=wildcards.drawn)}", *named]

    return told


def drawing(script, output, told=lambda wildcards: [], methods=(), of="", studies=".*", **inputs):
    """of: the wildcards of its log, as folders; studies: which ones it is of."""
    return {
        "script": script, "output": output, "told": told, "methods": methods, "of": of, "studies": studies,
        "inputs": inputs,
    }  # fmt: skip


def study_table(output, studies, **inputs):
    """A study laid out like Table 1."""
    numbers = {"published": "config/published.yaml", "baseline": baselines_of_study}
    return drawing(
        "table1_posgen", output, told_of_study, of="{study}/{protocol}", studies=studies, **numbers, **inputs
    )


def collected(study, title, script=None, **inputs):
    """A study that is collected in one file, as a table and a figure; and the same of the files that are kept of it.
    script: where it has not the study's name."""

    def drawn(files, numbers, picture, *reported):
        output = table_at(numbers, *reported, kinds=[".csv", ".md", ".tex"]) + figure_at(picture, *reported)
        return drawing(script or study, output, lambda wildcards: [f"--draw={picture}"], study=files, **inputs)

    own = drawn(at(posgen_paths.STUDY).replace("{study}", study), table(study), figure(study), script or study, title)
    of_kept = drawn(kept(study), published(f"tables/{study}"), published(f"figures/{study}"), None, None)
    return {f"{study}_table": own, f"published_{study}_table": of_kept}


def foretold(study, title):
    """A study of where accuracy first falls, beside what was predicted before it was run."""

    def predictions(wildcards):
        path, names = f"results-published/predictions/{study}.csv", ("preset", "protocol", "task", "encoding", "seed")
        lines = Path(path).read_text(encoding="utf-8").splitlines() if Path(path).is_file() else []
        told = {tuple(map(row.get, names)) for row in csv.DictReader(lines)}
        for cell in POSGEN.cells(study):
            model = cell.task, cell.encoding, str(cell.seed)
            # What beta32 does not touch is drawn as the protocol's that trained it.
            if not {(PRESET, name, *model) for name in (cell.protocol, cell.train_protocol)} & told:
                raise WorkflowError(f"{path} must hold {', '.join((PRESET, cell.protocol, *model))}; predict it first")
        return path

    return collected(study, title, "falls", predictions=predictions)


def of_model(own, of_kept, script, evaluation, figure_stem, table_stem, caption, title):
    """One evaluation of one language model, as a figure and a table; and the same of the lines that are kept of it."""

    def drawn(picture, numbers, lines, caption, title):
        output = figure_at(at(picture), caption, title, model="{drawn}")
        output += table_at(at(numbers), caption, f"Table of {title}", model="{drawn}")
        return drawing(script, output, told_of_model(evaluation, numbers), of="{drawn}", **{evaluation: lines})

    def measured(wildcards):
        return llm_measured(evaluation, llm_drawn(evaluation)[wildcards.drawn])

    def kept_lines(wildcards):
        return KEPT_LINES[f"{evaluation}_{llm_drawn(evaluation)[wildcards.drawn]}"]

    kept_files = [published(f"{folder}/{script}_{{drawn}}") for folder in ("figures", "tables")]
    return {
        own: drawn(figure_stem, table_stem, measured, caption, title),
        of_kept: drawn(*kept_files, kept_lines, None, None),
    }


DRAWINGS = {
    "figure1": drawing(
        "fig1_rotation_angles", figure_at(figure("fig1_rotation_angles"), "fig1", "Figure 1"), methods=["rope"]
    ),
    "figure2": drawing("fig2_dependencies", figure_at(figure("fig2_dependencies"), "fig2", "Figure 2")),
    "figure3_one": drawing(
        "fig3_validation_loss",
        figure_at(figure("fig3_validation_loss_{protocol}"), "fig3", "Figure 3", protocol="{protocol}"),
        told_of_protocol,
        of="{protocol}",
        evaluation=lambda wildcards: posgen_evaluations("table1", wildcards.protocol),
    ),
    "study_table": study_table(
        table_at(table("{study}_{protocol}"), "table1", "{study}", protocol="{protocol}"),
        "table1|five_seeds|extended|keyed",
        evaluation=evaluations_of_study,
        kept=kept_beside,
    ),
    "verdict": drawing("verdict", figure_at(figure("verdict"), "verdict", "Table 1 at a glance"), table=study_cells),
    "published_verdict": drawing("verdict", figure_at(published("figures/verdict"), None, None), table=published_cells),
    # Made by `resonance posgen rank`, which is no part of the paper.
    "published_leaderboard": drawing(
        "leaderboard", expand(published("tables/leaderboard.{kind}"), kind=LEADERBOARD_KINDS), rows=RANKING
    ),
    "published_study_table": study_table(
        table_at(published("tables/{study}_{protocol}"), None, None),
        "table1|extended|keyed",
        evaluation=f"{at(paths.KEPT)}/{{study}}_{{protocol}}.parquet",
    ),
    "study_shortcuts": drawing(
        "shortcuts",
        figure_at(figure("shortcuts_{study}_{protocol}"), "shortcuts", "Shortcuts, {study}", protocol="{protocol}"),
        told_of_protocol,
        of="{study}/{protocol}",
        studies="table1|keyed",
        evaluation=evaluations_of_study,
        baseline=baselines_of_study,
    ),
    **collected("rounding", "Rules of rounding"),
    **collected("ablation", "Ablation of the protocols"),
    **collected("ends", "YaRN's ramp from both protocols", "ablation"),
    **collected("aliases", "Why models fail past L"),
    **collected("leaks", "Why rules of rounding differ past L", "aliases"),
    **foretold("falls", "First falls"),
    **foretold("lengths", "First falls at other lengths"),
    **foretold("fastest", "First falls, the fastest wavelength moved"),
    **of_model(
        "figure4_one",
        "published_figure4",
        "fig4_perplexity",
        "perplexity",
        llm_paths.FIGURE4,
        llm_paths.FIGURE4_TABLE,
        "fig4",
        "Figure 4",
    ),
    # An extra beside perplexity (L14): asked of the models that `llm.passkey.lengths` names.
    **of_model(
        "passkey_figure",
        "published_passkey",
        "passkey",
        "passkey",
        llm_paths.PASSKEY,
        llm_paths.PASSKEY_TABLE,
        "passkey",
        "Passkey retrieval",
    ),
    "table2_one": drawing(
        "table2_leval",
        table_at(at(leval_paths.TABLE2), "table2", "Table 2"),
        published="config/published.yaml",
        scores=leval_scores(but=LEVAL_STAND_INS),
    ),
    "table2_stand_in": drawing(
        "table2_stand_in",
        table_at(at(leval_paths.TABLE2_STAND_IN), "table2_stand_in", "Table 2, stand-in", model="{model}"),
        lambda wildcards: [f"--title={LLM_SETTINGS.models[wildcards.model].title}"],
        of="{model}",
        scores=lambda wildcards: leval_scores(wildcards.model),
    ),
}

TABLES += study_tables("table1") + TABLE2_FILES
FIGURES += study_figures("table1") + PERPLEXITY_FILES + PASSKEY_FILES
FIGURES += expand(
    figure("{name}.{kind}"), name=["fig1_rotation_angles", "fig2_dependencies", "verdict"], kind=FIGURE_KINDS
)
# What stands behind them, and what the report says of each.
DRAWN_ROWS = posgen_evaluations("table1") + leval_scores()
DRAWN_ROWS += [
    path
    for evaluation in ("perplexity", "passkey")
    for model in llm_drawn(evaluation).values()
    for path in llm_measured(evaluation, model)
]
CAPTIONS = sorted(f"workflow/report/{path.name}" for path in Path(workflow.basedir, "workflow/report").glob("*.rst"))


def told_to(drawn):
    """What a script is told: every file of its inputs by name, and what its entry adds."""

    def told(wildcards, input):
        files = [(name, input.get(name)) for name in drawn["inputs"]]
        given = [(name, [found] if isinstance(found, str) else found) for name, found in files]
        return [f"--{name}={path}" for name, paths in given for path in paths] + drawn["told"](wildcards)

    return told
