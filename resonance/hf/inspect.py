"""What a config.json says of its rotary encoding: lengths, wavelengths, what Resonance does to them, and what is wrong.

Reads no weights and makes no model.

Legend: L training length, L' the length to run at, d/2 = R/2 features, lambda_j wavelength in positions.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import CONFIG_MAPPING
from transformers.utils import logging

from resonance.encoding.frequencies import depends_on_length, frequency_table, precritical
from resonance.encoding.spec import EncodingSpec
from resonance.hf.facts import Facts
from resonance.hf.findings import Finding, find
from resonance.hf.module import ONLY
from resonance.hf.parameters import original_length, read_specs, rotary_dim

_PLACES = ("rope_scaling", "rope_parameters")  # the first wins in transformers


def inspect(target: str | Path, download: bool = False) -> dict:
    """Everything that `resonance inspect` prints, as data.

    target    a folder, a config.json, or a model's name on the hub
    download  fetch the config.json of a hub model; else it must be in the cache. Weights are never fetched

    Returns {"model_type", "encodings": by layer type, or under `all_layers`, "unread": why there are none, or None,
    "findings": [{"name", "text"}]}. Raises ValueError for a target that is no config.
    """
    raw = read_config(target, download)
    text = {"model_type": raw.get("model_type"), **(raw.get("text_config") or raw)}
    if text["model_type"] not in CONFIG_MAPPING:
        raise ValueError(
            f"{target}: model_type must be one of transformers', got {text['model_type']!r}; code that comes with a "
            "model is not run"
        )
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what transformers has to say of a config is among the findings
    try:
        findings = [finding for facts in facts_of(text) for finding in find(facts)]
        encodings, unread = _encodings(text)
    finally:
        logging.set_verbosity(verbosity)
    if unread and not findings and text["model_type"] in CONFIG_MAPPING and _config(text) is None:
        findings.append(Finding("config_refused", f"transformers refuses it: {unread}; mend the value that it names"))
    return {
        "model_type": text["model_type"],
        "encodings": encodings,
        "unread": unread,
        "findings": [finding._asdict() for finding in dict.fromkeys(findings)],
    }


def read_config(target: str | Path, download: bool = False) -> dict:
    """A config.json as it stands. Raises ValueError where there is none."""
    path = Path(target)
    if path.is_dir():
        path /= "config.json"
    if not path.is_file():
        if path.suffix == ".json" or path.is_absolute() or str(target).count("/") > 1 or Path(target).exists():
            raise ValueError(f"target must be a folder with config.json, or such a file, got {target}: no {path.name}")
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(str(target), "config.json", local_files_only=not download))
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
            cure = "the hub does not give it" if download else "--download fetches its config.json"
            raise ValueError(
                f"target must be a folder, a config.json or a model of the hub, got {target}, neither here nor in the "
                f"cache; {cure} ({type(error).__name__})"
            ) from None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON, got {error}; mend it") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path} must hold a mapping, got {type(raw).__name__}; give a model's config.json")
    for name, kind in (("model_type", str), ("text_config", dict)):
        if raw.get(name) is not None and not isinstance(raw[name], kind):
            wanted = "text" if kind is str else "a mapping"
            raise ValueError(f"{path}: {name} must be {wanted}, got {type(raw[name]).__name__}; mend it")
    return raw


def facts_of(text: Mapping[str, object]) -> list[Facts]:
    """The facts of every encoding that the text part of a config asks for."""
    plain = _config({key: value for key, value in text.items() if key not in (*_PLACES, "dtype", "torch_dtype")})
    given = next((text[place] for place in _PLACES if text.get(place)), {})
    if not isinstance(given, dict):
        given = {"rope_type": given}
    nested = [value for value in given.values() if isinstance(value, dict) and {"rope_type", "rope_theta"} & set(value)]
    added = getattr(plain, "rope_parameters", None) or {}
    return [_facts(text, rope, plain, added, bool(nested)) for rope in nested or [given]]


def _facts(text: Mapping, rope: Mapping, plain: object, added: Mapping, by_layer: bool) -> Facts:
    def used(name: str, default: object) -> object:
        return next((where[name] for where in (rope, text, added) if where.get(name) is not None), default)

    hidden, heads = text.get("hidden_size"), text.get("num_attention_heads")
    derived = hidden // heads if isinstance(hidden, int) and isinstance(heads, int) and heads else None
    return Facts(
        raw=text,
        rope=rope,
        model_type=str(text["model_type"]),
        base=used("rope_theta", 10_000.0),
        max_length=text.get("max_position_embeddings", getattr(plain, "max_position_embeddings", None)),
        head_dim=text.get("head_dim") or _head_dim(plain) or derived,
        partial=used("partial_rotary_factor", 1.0),
        original=getattr(plain, "original_max_position_embeddings", None),
        by_layer=by_layer,
    )


def _head_dim(config: object) -> int | None:
    """Of a config's class; None where its layers differ in it."""
    try:
        return getattr(config, "head_dim", None)
    except Exception:  # Gemma 4's raises one of transformers' own
        return None


def _config(values: Mapping[str, object]) -> object | None:
    """An instance of a config's class; None where it refuses."""
    try:
        return CONFIG_MAPPING[values["model_type"]].from_dict(copy.deepcopy(dict(values))).get_text_config()
    except Exception:  # whatever a family's own checks raise; `inspect` says so where no finding does
        return None


def _encodings(text: Mapping[str, object]) -> tuple[dict[str, dict], str | None]:
    """The encodings by layer type, or why there is none."""
    try:
        config = CONFIG_MAPPING[text["model_type"]].from_dict(copy.deepcopy(dict(text))).get_text_config()
        length = int(config.max_position_embeddings)
        specs, dim, train_length = read_specs(config), rotary_dim(config), original_length(config)
        return {name: _describe(spec, dim, train_length, length) for name, spec in specs.items()}, None
    except Exception as error:  # the families' own checks raise what they like, on a config that is wrong
        said = " ".join(str(error).split())
        return {}, f"{type(error).__name__}: {said}" if not isinstance(error, ValueError) else said


def _describe(spec: EncodingSpec, dim: int, train_length: int, length: int) -> dict:
    table = frequency_table(spec, dim, length)
    before = frequency_table(replace(spec, resonance=False, rounding="nearest"), dim, length)
    try:
        moved = frequency_table(replace(spec, resonance=True), dim, length).wavelength.tolist()
    except ValueError:  # a wavelength below half a position has no integer
        moved = [None] * len(before.theta)
    packed = np.where((table.period > 0) & (table.period <= length), table.period, length)
    return {
        "spec": spec.to_dict(),
        "train_length": train_length,
        "length": length,
        "rotary_dim": dim,
        "attention_factor": table.attention_factor,
        "follows_length": depends_on_length(spec, dim),
        "num_full_turns": int(precritical(table.theta, train_length).sum()),
        "wavelengths": before.wavelength.tolist(),
        "resonance": moved,
        "table_bytes": int(8 * packed.sum()),
        "plain_table_bytes": 8 * length * len(table.theta),
    }


def as_text(report: Mapping) -> str:
    """A report to read."""
    lines = [f"model      {report['model_type']}"]
    for name, one in report["encodings"].items():
        spec = EncodingSpec.from_dict(one["spec"])
        features, turns = len(one["wavelengths"]), one["num_full_turns"]
        on = f" with Resonance ({spec.rounding})" if spec.resonance else ""
        at = f"; it follows the length, this is the one at {one['length']:,}" if one["follows_length"] else ""
        lines += [
            "" if name == ONLY else f"\n{name}",
            f"encoding   {spec.method}{on}, base {spec.base:g}, scale {spec.scale:g}, amplitude "
            f"{one['attention_factor']:.6g}",
            f"lengths    L = {one['train_length']:,}, L' = {one['length']:,}",
            f"features   {features} over {one['rotary_dim']} dimensions; {turns} turn fully within L, "
            f"{features - turns} do not",
            f"table      {_bytes(one['table_bytes'])} packed by period, {_bytes(one['plain_table_bytes'])} with a row "
            f"for every position{at}",
            "",
            f"{'feature':>7}  {'wavelength':>14}  {'resonance':>14}  {'moved by':>9}",
        ]
        for j, (wavelength, moved) in enumerate(zip(one["wavelengths"], one["resonance"], strict=True)):
            by = "-" if moved is None else f"{moved / wavelength - 1:+.2%}"
            to = "-" if moved is None else f"{moved:,.10g}"
            lines.append(f"{j:>7}  {wavelength:>14,.4f}  {to:>14}  {by:>9}")
    if report["unread"]:
        lines += ["", f"no table   {report['unread']}"]
    lines += ["", f"findings   {len(report['findings']) or 'none'}"]
    lines += [str(Finding(**finding)) for finding in report["findings"]]
    return "\n".join(lines)


def _bytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"


def plot(report: Mapping, path: str | Path) -> None:
    """Draw the wavelengths of a report, and how far Resonance moves them. Raises ValueError where it has none."""
    if not report["encodings"]:
        raise ValueError(f"--plot needs an encoding that can be read, got none: {report['unread']}")
    import matplotlib.pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 6), sharex=True, layout="constrained")
    for name, one in report["encodings"].items():
        wavelengths = np.array(one["wavelengths"])
        moved = np.array(one["resonance"], dtype=float)
        features = np.arange(len(wavelengths))
        above.semilogy(features, wavelengths, "o", markersize=3, label=name if len(report["encodings"]) > 1 else None)
        below.semilogy(features, np.abs(moved / wavelengths - 1), "o", markersize=3)
        lengths = {one["length"]: ("L'", ":")} | {one["train_length"]: ("L", "--")}
        for length, (said, style) in lengths.items():
            above.axhline(length, color="grey", linestyle=style, linewidth=1)
            above.annotate(said, (0, length), textcoords="offset points", xytext=(0, 3), color="grey")
    above.set_ylabel("wavelength (positions)")
    below.set_ylabel("moved by Resonance (share of it)")
    below.set_xlabel("feature j")
    if len(report["encodings"]) > 1:
        above.legend()
    figure.savefig(path)
    plt.close(figure)
