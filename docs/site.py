"""What the docs site has that no page of docs/ holds: the config reference, made of the schema, and the changelog."""

import json
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]


def on_files(files, config):
    files.append(File.generated(config, "config.md", content=config_reference()))
    files.append(File.generated(config, "changelog.md", content=(ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown, **_):
    """Links to what is a page on the site alone; other files of the repository keep their name and lose their link."""
    for source, page in {"../config/README.md": "config.md", "../CHANGELOG.md": "changelog.md"}.items():
        markdown = markdown.replace(f"]({source})", f"]({page})")
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", markdown)


def config_reference() -> str:
    """Every key of a preset, a table a section; the names of sections are the settings' classes."""
    schema = json.loads((ROOT / "workflow/schemas/preset.schema.json").read_text(encoding="utf-8"))
    parts = ["# Config", "", "A preset is `config/NAME.yaml`. Bad keys and values end in one line that names them.", ""]
    for name, section in {"Preset": schema, **schema["$defs"]}.items():
        if "properties" not in section:
            continue
        parts += [
            f"## {name}",
            "",
            section.get("description", ""),
            "",
            "| key | type | meaning |",
            "| --- | --- | --- |",
        ]
        for key, value in section["properties"].items():
            needed = " (required)" if key in section.get("required", ()) else ""
            meaning = " ".join(value.get("description", "").split()).replace("|", "\\|")
            default = f" Default: `{json.dumps(value['default'])}`." if value.get("default") is not None else ""
            parts.append(f"| `{key}` | {_type(value)}{needed} | {meaning}{default} |")
        parts.append("")
    return "\n".join(parts)


def _type(value: dict) -> str:
    """A value's type in words; a section links to its table."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in value:
        return " or ".join(f"`{one}`" for one in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if "anyOf" in value:
        return " or ".join(_type(one) for one in value["anyOf"] if one.get("type") != "null")
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {}))}"
    if isinstance(value.get("additionalProperties"), dict):
        return f"mapping to {_type(value['additionalProperties'])}"
    limits = [
        f"{sign} {value[key]}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"))
        if key in value
    ]
    return " ".join([value.get("type", "any"), *limits])
