"""A table for people, as Markdown, LaTeX and HTML. Knows text, and nothing of what it says.

Cells are plain text with Unicode signs (±, −); each format escapes what it must.
"""

import html
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from resonance.record.files import write_text

Groups = list[tuple[str, list[list[str]]]]
"""Rows of cells under the titles of their groups; an empty title stands nowhere."""


@dataclass(frozen=True)
class Table:
    """Rows in titled groups under one header, a caption above and notes below. The first column holds names."""

    label: str
    caption: str
    header: list[str]
    groups: Groups
    notes: str


class Bold(str):
    """A cell in bold."""


class Underlined(str):
    """An underlined cell."""


def number(value: float | None, sign: str = "-", decimals: int = 2) -> str:
    """A true minus, a dash for nothing; sign `+` for differences."""
    if value is None:
        return "–"
    value = round(value, decimals) + 0.0  # never −0.00
    return f"{value:{sign}.{decimals}f}".replace("-", "−")


def with_sd(mean: float | None, sd: float | None) -> str:
    """A mean and its standard deviation; alone where there is none."""
    return number(mean) if sd is None else f"{number(mean)} ± {number(sd)}"


def interval(low: float | None, high: float | None, sign: str = "-") -> str:
    return "–" if low is None else f"[{number(low, sign)}, {number(high, sign)}]"


def grouped(rows: Iterable[tuple[str, list[str]]]) -> Groups:
    """(title of its group, cells) of every row, as a table's groups in the order met."""
    groups: dict[str, list[list[str]]] = {}
    for title, cells in rows:
        groups.setdefault(title, []).append(cells)
    return list(groups.items())


def markdown(tables: Iterable[Table]) -> str:
    return "\n".join(_markdown(table) for table in tables)


def latex(tables: Iterable[Table]) -> str:
    """Floats to \\input; needs the packages booktabs and adjustbox."""
    return "% \\usepackage{booktabs,adjustbox}\n" + "\n".join(_latex(table) for table in tables)


def page(title: str, tables: Iterable[Table]) -> str:
    """One self-contained HTML page."""
    body = "\n".join(_html(table) for table in tables)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{html.escape(title)}</title>\n'
        f"<style>\n{_CSS}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def write_csv(stem: Path, rows: list[dict], columns: list[str] | None = None) -> None:
    """stem.csv, for machines; columns: which, where there may be no row or none of some."""
    write_text(Path(f"{stem}.csv"), pl.DataFrame(rows, columns, infer_schema_length=None).write_csv())


def write_tables(stem: Path, title: str, tables: list[Table]) -> None:
    """stem.md, .tex and .html, each whole; the title is the page's."""
    write_text(Path(f"{stem}.md"), markdown(tables))
    write_text(Path(f"{stem}.tex"), latex(tables))
    write_text(Path(f"{stem}.html"), page(title, tables))


def _markdown(table: Table) -> str:
    def row(cells: list[str]) -> str:
        texts = _marked(cells, lambda cell: cell.replace("|", "\\|"), "**%s**", "<u>%s</u>")
        return "| " + " | ".join(texts) + " |\n"

    blank = [""] * (len(table.header) - 1)
    lines = row(table.header) + row([":--", *["--:"] * len(blank)])
    for title, rows in table.groups:
        lines += (row([f"**{title}**", *blank]) if title else "") + "".join(map(row, rows))
    return f"{table.caption}\n\n{lines}\n{table.notes}\n"


def _latex(table: Table) -> str:
    def row(cells: list[str]) -> str:
        return " & ".join(_marked(cells, _tex, "\\textbf{%s}", "\\underline{%s}")) + " \\\\\n"

    width, caption, body = len(table.header), _tex(f"{table.caption} {table.notes}"), ""
    for title, rows in table.groups:
        named = f"\\multicolumn{{{width}}}{{l}}{{\\textit{{{_tex(title)}}}}} \\\\\n" if title else ""
        body += f"\\midrule\n{named}" + "".join(map(row, rows))
    return (
        "\\begin{table*}[t]\n\\centering\n\\begin{adjustbox}{max width=\\textwidth}\n"
        f"\\begin{{tabular}}{{l{'r' * (width - 1)}}}\n\\toprule\n{row(table.header)}{body}"
        f"\\bottomrule\n\\end{{tabular}}\n\\end{{adjustbox}}\n\\caption{{{caption}}}\n\\label{{tab:{table.label}}}\n"
        "\\end{table*}\n"
    )


_TEX = {"\\": "\\textbackslash{}", "±": "$\\pm$", "−": "$-$", "²": "$^2$", "–": "--", "~": "\\textasciitilde{}"}
_TEX |= {sign: "\\" + sign for sign in "%&_#${}"} | {"^": "\\textasciicircum{}"}


def _tex(text: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in text)


def _html(table: Table) -> str:
    def row(tag: str, cells: list[str]) -> str:
        texts = _marked(cells, html.escape, "<b>%s</b>", "<u>%s</u>")
        return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in texts) + "</tr>\n"

    body = ""
    for title, rows in table.groups:
        named = f'<tr class="group"><th colspan="{len(table.header)}">{html.escape(title)}</th></tr>\n'
        body += (named if title else "") + "".join(row("td", cells) for cells in rows)
    return (
        f'<p>{html.escape(table.caption)}</p>\n<div class="scroll"><table>\n<thead>\n{row("th", table.header)}'
        f"</thead>\n<tbody>\n{body}</tbody>\n</table></div>\n<p>{html.escape(table.notes)}</p>\n"
    )


def _marked(cells: list[str], escape: Callable[[str], str], bold: str, underlined: str) -> list[str]:
    """The cells' escaped texts, each in the form of its mark, if it has one."""
    forms = {Bold: bold, Underlined: underlined}
    return [forms.get(type(cell), "%s") % escape(cell) for cell in cells]


_CSS = """\
body { font: 12.5px/1.4 Georgia, "Times New Roman", serif; color: #111; background: #fff; margin: 1em; }
table { border-collapse: collapse; border-top: 2px solid #111; border-bottom: 2px solid #111; }
.scroll { overflow-x: auto; }
p { max-width: 70em; color: #444; margin: .8em 0; }
div + p { margin-bottom: 3em; }
th, td { padding: .15em .45em; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 1px solid #111; vertical-align: bottom; }
tr.group th { border-top: 1px solid #bbb; padding-top: .5em; font-style: italic; font-weight: normal; }
"""
