"""The roots of every path of the workflow. A wildcard is a name; a value never enters a path.

Each wing has the templates below them in a `paths` of its own; `{preset}` roots them all.
"""

RESULTS = "results/{preset}"
LOGS = "logs/{preset}"
BENCHMARKS = RESULTS + "/benchmarks"
TABLES = RESULTS + "/tables"
FIGURES = RESULTS + "/figures"
SUMMARY = RESULTS + "/summary.html"
CRATE = RESULTS + "/{preset}.crate.zip"

# Measured rows that the repository keeps, and what is drawn of them without running anything.
KEPT = "results-published/{preset}"
PUBLISHED = RESULTS + "/published"
