"""Which modules a rule computes with, and what of them counts."""

import pytest

from resonance.record import code


def modules(*roots: str) -> set[str]:
    return {line.split()[0] for line in code.code_of(*roots)}


def test_a_training_computes_with_the_decoder_and_the_encoding_and_not_with_files_or_progress():
    used = modules("resonance.posgen.train")
    assert {"resonance.posgen.train", "resonance.posgen.decoder", "resonance.encoding.frequencies"} <= used
    assert not [name for name in used if name.startswith(("resonance.record", "resonance.llm", "resonance.cli"))]
    assert "resonance.posgen.evaluate" not in used and "resonance.posgen.progress" not in used


def test_a_missing_module_is_an_error():
    with pytest.raises(FileNotFoundError):
        code.code_of("resonance.posgen.trane")


SOURCE = '''"""A header."""

import math  # for pi


def area(r):
    """pi r^2"""
    "another string alone"
    return math.pi * r**2 + len("""# no comment""")
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("A header", "Another header", True),
        ("  # for pi", "", True),
        ("pi r^2", "pi times\n    r^2", True),
        ("\n\n\ndef", "\n\ndef", True),
        ("r**2", "r**3", False),
        ("# no comment", "# no remark", False),
        ("    return", "    if r:\n        return", False),
    ],
)
def test_comments_docstrings_and_blank_lines_do_not_count(old, new, same):
    assert old in SOURCE
    assert (code.what_counts(SOURCE) == code.what_counts(SOURCE.replace(old, new))) is same


def test_what_counts_still_compiles():
    compile(code.what_counts(SOURCE.replace("return", "pass; return")), "area", "exec")
