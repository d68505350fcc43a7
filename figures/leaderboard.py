"""The kept leaderboard of position encodings (`resonance posgen rank`), drawn of its rows."""

from pathlib import Path
from typing import Annotated

import typer

from figures.inputs import run
from resonance.posgen.ranking.board import write_board
from resonance.posgen.ranking.rows import RANKING
from resonance.record.rows import read_rows


def main(
    rows: Annotated[Path, typer.Option(help="Rows of a ranking.")],
    output: Annotated[Path, typer.Option(help="A stem.")],
    preset: Annotated[str, typer.Option(help="Of the workflow; a ranking has its own size.")] = "",
) -> None:
    """Draw the leaderboard."""
    write_board(output, read_rows(rows, RANKING), [])


if __name__ == "__main__":
    run(main)
