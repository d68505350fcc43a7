"""The questions that a preset names, gathered into one folder with a list of what is there.

    TASK.jsonl    in L-Eval's own keys, a document a line: the bytes of the source, or made here
    tasks.json    where they come from; of every task its SHA-256, documents and questions; which are missing

Whoever answers reads this folder alone. No model, no torch.
"""

import json
from pathlib import Path

from resonance.leval import made
from resonance.leval.catalogue import ALL_TASKS
from resonance.leval.files import Tasks, read_tasks
from resonance.leval.settings import MADE, TasksRun
from resonance.llm.text import documents
from resonance.record.files import disk_errors, read_record, sha256, write_record, write_text

LIST = "tasks.json"


def gather(run: TasksRun, folder: Path, text: Path | None = None) -> dict:
    """Write the folder of a preset's questions; what tasks.json says is returned.

    text: where the package of the plays was unpacked, for questions that are made of one.
    Raises ValueError, one line, for a source with none of the tasks, or with files that are not whole.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (LIST, *(f"{task}.jsonl" for task in ALL_TASKS)):
        (folder / name).unlink(missing_ok=True)
    revision = None
    if run.source == MADE:
        rows = made.make_rows(documents(run.text, text), run.made)
        for name, own in ((made.SEEN, rows), (made.BLIND, made.blind(rows))):
            if name in run.tasks:
                write_text(folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in own))
    else:
        root, revision = _root(run.source)
        for name, path in _files(root, run.tasks).items():
            with disk_errors(folder / f"{name}.jsonl"):
                (folder / f"{name}.jsonl").write_bytes(path.read_bytes())
    tasks = read_tasks(folder, run.tasks)
    found = {"source": run.source, "revision": revision, "missing": list(tasks.missing), "tasks": {}}
    for name, own in tasks.found.items():
        questions, most = sum(len(document.questions) for document in own), ALL_TASKS[name].num_questions
        if most and questions > most:
            raise ValueError(f"leval.source {run.source}: {name} must have {most} questions at most, got {questions}")
        digest = sha256(folder / f"{name}.jsonl")
        found["tasks"][name] = {"sha256": digest, "documents": len(own), "questions": questions}
    write_record(folder / LIST, "questions", found)
    return found


def read(folder: Path) -> tuple[dict, Tasks]:
    """What a gathered folder holds: its list, and the tasks. Raises ValueError where a file is not the listed one."""
    found = read_record(Path(folder) / LIST, "questions")
    for name, known in found["tasks"].items():
        path = Path(folder) / f"{name}.jsonl"
        if not path.is_file() or sha256(path) != known["sha256"]:
            raise ValueError(f"{path} must be the file that {LIST} names, got another; gather the tasks again")
    return found, read_tasks(folder, [*found["tasks"], *found["missing"]])


def _root(source: str) -> tuple[Path, str | None]:
    """The folder of a `path:` or `hf:` source, and the commit of the latter."""
    kind, _, name = source.partition(":")
    if kind == "path":
        if not Path(name).is_dir():
            raise ValueError(
                f"leval.source {source}: no such folder; name one with L-Eval's files, tpo.jsonl and so on"
            )
        return Path(name), None
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        root = snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=["*.jsonl"])
    except OSError as error:
        reason = " ".join(str(error).split())[:160]
        raise ValueError(
            f"leval.source {source} could not be fetched from the hub ({reason}); check the network and the name, or "
            "download it and name the folder with path:"
        ) from None
    return Path(root), Path(root).name


def _files(root: Path, tasks: list[str]) -> dict[str, Path]:
    """TASK.jsonl of those tasks that lie anywhere in a folder, upper and lower case alike."""
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*.jsonl")):
        name = path.stem.lower()
        if name not in tasks:
            continue
        if name in found:
            raise ValueError(
                f"{root} must hold one file of {name}, got {found[name].relative_to(root)} and "
                f"{path.relative_to(root)}; name the folder of one of them"
            )
        found[name] = path
    return found
