"""The encoding that a file of the workflow holds; beside the settings, so that what has none does not depend on it."""

from pathlib import Path

from resonance.encoding.spec import EncodingSpec
from resonance.record.files import read_json


def read_encoding(path: Path) -> EncodingSpec:
    """The encoding that a file of the workflow holds."""
    try:
        return EncodingSpec.from_dict(read_json(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
