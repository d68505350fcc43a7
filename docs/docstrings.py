"""Docstrings as Markdown: the house's aligned lists of names and meanings become lists, formulas keep their stars."""

import re

import griffe

_ENTRY = re.compile(r"^(\S+(?:, \S+)*) {2,}(\S.*)$")


class Docstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.splitlines()
        if _ENTRY.match(lines[0]):
            items: list[str] = []
            for line in lines:
                if entry := _ENTRY.match(line):
                    items.append(f"* `{entry[1]}`: {_plain(entry[2])}")
                else:
                    items[-1] += f" {_plain(line.strip())}"
            paragraphs.append("\n".join(items))
        elif lines[0].startswith("    "):
            paragraphs.append(paragraph)  # code
        else:
            paragraphs.append("\n".join(map(_plain, lines)))
    return "\n\n".join(paragraphs)


def _plain(text: str) -> str:
    """Stars and underscores outside code as they stand."""
    return "".join(
        part if part.startswith("`") else re.sub(r"([*_<])", r"\\\1", part) for part in re.split(r"(`[^`]*`)", text)
    )
