"""What gets through when everything is broken: `python -m benchmarks.torture [--full]`.

Mutants of config files, random command lines, damaged files of every kind, a disk that fills up under every command,
and trainings, fine-tunings and answers that are killed. Of each: how many were tried, how many ended in one line, how
many were valid, and what must be none, tracebacks and damaged files taken for whole. Short by default; --full takes the
counts of docs/reliability.md, some minutes.
Status 1 where something that must be none is not. L-Eval's parser has a torture of its own (`torture_leval`).
"""

import argparse
import contextlib
import copy
import ctypes
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import yaml

from benchmarks.torture_kills import KILLED, kills, twice
from benchmarks.torture_runs import CHAIN, OUTPUTS, READERS, call, make_runs
from resonance.record.settings import SettingsError, read_yaml
from resonance.workflow import preset as presets

ROOT = Path(__file__).resolve().parents[1]

# Mutants of config files

NASTY = [
    *(None, True, False, -1, 0, 1, 2, 3, 2**31, 2**70, 10**400, 1.5, -0.5, float("inf"), float("nan")),
    *("", "laptop", "1e-3", "a\nb", "../x", "..", "\u2028", "recursive", "a" * 300, "\x00"),
    *([], [1, 1], ["rope"], [[]], {}, {"rope": {"method": "rope"}}, {1: 2}, {"recursive": 5}, {None: []}),
]
SCRAPS = [
    *":[]{}-\n'\"0#|\t~", "", "", "  ", "&a ", "*a", "!!int ", "!!float ''", "!!bool maybe ", "!!timestamp x ",
    "!!binary '", "? ", "<<: ", "9e9", "0x" + 9999 * "f", "\ufeff",
]  # fmt: skip


def places(tree: object) -> Iterator[tuple[dict | list, object]]:
    """Every (container, key) in a tree of mappings and lists."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from places(tree[key])


def broken_tree(text: str, draw: random.Random) -> str:
    """YAML of a text's tree after one to three deletions, replacements, insertions or renamings."""
    tree = copy.deepcopy(_tree(text))
    for _ in range(draw.choice([1, 1, 2, 3])):
        found = list(places(tree))
        if not found:
            break
        container, key = draw.choice(found)
        act = draw.choice(["delete", "replace", "replace", "insert", "rename"])
        value = copy.deepcopy(draw.choice(NASTY))
        if act == "delete":
            del container[key]
        elif act == "replace":
            container[key] = value
        elif isinstance(container, list):
            container.insert(key, value)
        elif act == "insert":
            container[draw.choice(["extra", "seed", "method", 1, None, True, 2.5, "a\nb"])] = value
        else:
            container[draw.choice(["", "seeds", "..", 7, str(key)[:-1], str(key) + "s"])] = container.pop(key)
    return yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)


_TREES: dict[str, dict] = {}


def _tree(text: str) -> dict:
    if text not in _TREES:
        _TREES[text] = yaml.safe_load(text)
    return _TREES[text]


def broken_text(text: str, draw: random.Random) -> str:
    """The text after one to three edits of a few characters."""
    for _ in range(draw.choice([1, 1, 2, 3])):
        start = draw.randrange(len(text))
        stop = start + draw.choice([0, 0, 1, 1, 2, 5, 30])
        text = text[:start] + draw.choice(SCRAPS) + text[stop:]
    return text


def configs(folder: Path, preset: str, names: list[str], count: int, seed: int = 0) -> Counter:
    """How `count` mutants of some files of a config folder end: `one line`, `valid`, `traceback` (said on stderr)."""
    original = {path.name: path.read_text("utf-8") for path in folder.glob("*.yaml")}
    whole = {name: read_yaml(folder / name) for name in original}
    draw, ends = random.Random(seed), Counter()
    for _ in range(count):
        name = draw.choice(names)
        (folder / name).write_text(draw.choice([broken_tree, broken_text])(original[name], draw), encoding="utf-8")
        # The files left alone need not be parsed anew each time.
        read = lambda path, name=name: read_yaml(path) if path.name == name else copy.deepcopy(whole[path.name])  # noqa: E731
        with patch.object(presets, "read_yaml", read):
            try:
                presets.load(folder, preset)
                ends["valid"] += 1
            except SettingsError as error:
                one = str(error).isprintable() and len(str(error)) < 2000
                ends["one line" if one else "traceback"] += 1
                if not one:
                    print(f"{name}: {str(error)[:3000]}", file=sys.stderr)
            except Exception as error:
                ends["traceback"] += 1
                print(f"{name}: {error!r} from\n{(folder / name).read_text('utf-8')[:3000]}", file=sys.stderr)
        (folder / name).write_text(original[name], encoding="utf-8")
    return ends


# Command lines

WORDS = [
    "", "-", "--", "-h", "--help", "x", "x/y", "0", "-1", "1.5", "nan", str(10**30),
    "a" * 300, "é", "\udcff", "a\nb", "\u2028", "untuned", "paper", "smoke", "cot", "rope", "perplexity", "plays=x",
    "--threads", "--seed", "--output", "--model", "--text", "--train-text", "--task", "--record", "--kept", "--folder",
    "--protocol", "--checkpoint-every", "--source", "--base", "--journal", "--preset", "--target", "--device",
]  # fmt: skip


def command_lines(runs: Path, count: int, seed: int = 0) -> Counter:
    """How `count` lines end that are put together of commands, files of any kind, and words: as `configs`."""
    # No word leads out of the folder: a line may replace what it is told to write.
    draw, ends = random.Random(seed), Counter()
    lines = [line for line in CHAIN.values() if line[0] != "figures.table1_posgen"]
    files = [str(path) for path in sorted(runs.rglob("*")) if path.is_file() or path.is_dir()]
    kept = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    for _ in range(count):
        line = list(draw.choice(lines))
        if draw.random() < 0.3:
            line = line[:2] + [draw.choice(WORDS + files) for _ in range(1, draw.randrange(2, 10))]
        for _ in range(draw.choice([1, 1, 2, 3])):
            place, word = draw.randrange(len(line) + 1), draw.choice(draw.choice([WORDS, files]))
            act = draw.choice(["replace", "replace", "insert", "delete"])
            line[place : place + (act != "insert")] = [] if act == "delete" else [word]
        status, said = call(line, runs)
        lines_said = [part for part in said.split("\n") if part.startswith("error:")]
        one = status in (0, 1, 2) and "Traceback" not in said and len(lines_said) <= 1
        ends["valid" if status == 0 else "one line" if one else "traceback"] += 1
        if not one:
            print(f"{line}: {said[-3000:]}", file=sys.stderr)
        for path, content in kept.items():  # a line may have written over it
            if not path.is_file() or path.read_bytes() != content:
                shutil.rmtree(path, ignore_errors=True)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    return ends


# Damaged files


def damaged(content: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """A file's bytes with one bit flipped, cut short, a stretch lost, zeroed or doubled; or another file's."""
    act, place = draw.choice(["flip"] * 6 + ["cut", "lost", "zeros", "more", "other"]), draw.randrange(len(content))
    stop = min(len(content), place + draw.choice([1, 7, 512]))
    if act == "flip":
        return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
    if act == "cut":
        return content[:place]
    if act == "lost":
        return content[:place] + content[stop:]
    if act == "zeros":
        return content[:place] + bytes(stop - place) + content[stop:]
    return content + content[place:stop] if act == "more" else draw.choice(others)


def damage(runs: Path, kind: str, count: int, seed: int = 0) -> Counter:
    """How `count` damaged files of a kind are met by their reader: `one line`, `taken`, `traceback`."""
    name, read = READERS[kind]
    path = runs / name
    content = path.read_bytes()
    others = [other.read_bytes() for other in runs.rglob(f"*{path.suffix}") if other.name != path.name] + [
        b"",
        b"\xff" * 99,
    ]
    draw, ends = random.Random(f"{seed} {kind}"), Counter()
    for _ in range(count):
        while (broken := damaged(content, others, draw)) == content:
            pass
        path.write_bytes(broken)
        try:
            read(path)
            ends["taken"] += 1
        except (ValueError, OSError) as error:
            ends["one line" if "\n" not in str(error) else "traceback"] += 1
        except BaseException as error:
            ends["traceback"] += 1
            print(f"{kind}: {error!r}", file=sys.stderr)
    path.write_bytes(content)
    read(path)
    return ends


# A disk that fills up


def full_disk(runs: Path, name: str, limits: list[int]) -> Counter:
    """How a command ends whose every file may have so many bytes: `one line` that names a file, `valid`, `taken` where
    it fails and leaves its last output, `traceback`."""
    import resource
    import signal

    ends, before = Counter(), resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in limits:
        with tempfile.TemporaryDirectory(dir=runs.parent) as folder:
            copied = Path(shutil.copytree(runs, Path(folder) / "runs"))
            for output in OUTPUTS[name]:
                path = copied / output
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            try:
                status, said = call(CHAIN[name], copied)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
                signal.signal(signal.SIGXFSZ, handler)
            last = (copied / OUTPUTS[name][-1]).exists()
            line = said.strip().split("\n")[-1]  # what came before is progress
            named = {part for output in OUTPUTS[name] for part in (output, str(Path(output).parent))}
            one = line.startswith("error:") and any(part in line for part in named) and "Traceback" not in said
            ends["valid" if status == 0 and last else "taken" if last else "one line" if one else "traceback"] += 1
            if status and (last or not one):
                print(f"{name} under {limit}: {said[-2000:]}", file=sys.stderr)
    return ends


# Another user


def another_user(runs: Path, name: str) -> Counter:
    """How a command ends whose folders are another user's: with its outputs to be made, with outputs to be made again,
    and with inputs that may not be read. `taken` where a file changed, `valid` where it ends all the same."""
    ends = Counter()
    for case in ("make", "replace", "read"):
        with tempfile.TemporaryDirectory(dir=runs.parent) as folder:
            copied = Path(shutil.copytree(runs, Path(folder) / "runs"))
            outputs = [copied / output for output in OUTPUTS[name]]
            for path in outputs if case != "replace" else []:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            before = _bytes_of(copied)
            files = {copied / word for word in CHAIN[name]} - set(outputs)
            closed = {path: 0 for path in files if path.is_file()} if case == "read" else {}
            modes = {path: 0o555 if path.is_dir() else 0o444 for path in (copied, *copied.rglob("*"))} | closed
            for path, mode in modes.items():
                path.chmod(mode)
            try:
                with _no_override():
                    status, said = call(CHAIN[name], copied)
            finally:
                for path in sorted(modes):
                    path.chmod(0o755)
            line = said.strip().split("\n")[-1]
            one = line.startswith("error:") and "Permission denied" in line and "Traceback" not in said
            if _bytes_of(copied) != before:
                ends["taken"] += 1
            else:
                ends["valid" if status == 0 else "one line" if one else "traceback"] += 1
            if not one:
                print(f"{name}, {case}: {said[-2000:]}", file=sys.stderr)
    return ends


def _bytes_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def _no_override() -> Iterator[None]:
    """Root as any other user: without the capabilities to read and write what a file's mode forbids."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    before = sets[0]
    sets[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    libc.capset(header, sets)
    try:
        yield
    finally:
        sets[0] = before
        libc.capset(header, sets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the counts of docs/reliability.md")
    asked = parser.parse_args()
    mutants, lines, files, limits, killed, twos = (2600, 1000, 400, 12, 20, 5) if asked.full else (130, 40, 20, 2, 3, 1)
    worst = 0

    def show(what: str, ends: Counter) -> None:
        nonlocal worst
        worst += ends["traceback"] + ends["taken"]
        cells = (sum(ends.values()), ends["one line"], ends["valid"], ends["traceback"], ends["taken"])
        print(f"| {what} | {' | '.join(f'{cell:,}' for cell in cells)} |", flush=True)

    print("| broken | tried | one line | valid | traceback | taken for whole |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        config = Path(shutil.copytree(ROOT / "config", Path(temporary) / "config"))
        names = ["smoke.yaml", "encodings.yaml", "protocols.yaml", "llm_protocols.yaml", "leval.yaml"]
        show("config files", configs(config, "smoke", names, mutants))
        runs = make_runs(Path(temporary) / "runs")
        for kind in READERS:
            show(kind, damage(runs, kind, files))
        draw = random.Random(0)
        for name in OUTPUTS:
            show(f"a full disk under {name}", full_disk(runs, name, [draw.choice(LIMITS) for _ in range(limits)]))
        for name in OUTPUTS:
            show(f"{name} in another user's folders", another_user(runs, name))
        for name in KILLED:
            show(f"{name}, twice at once", twice(runs, name, twos))
            show(f"{name}, killed", kills(runs, name, killed))
        show("command lines", command_lines(runs, lines))
    sys.exit(bool(worst))


LIMITS = [0, 1, 100, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000]

if __name__ == "__main__":
    main()
