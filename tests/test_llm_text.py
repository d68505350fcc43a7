"""Texts: read by source, packed once, split by document, cut to any length."""

import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import DATA
from resonance.llm import fetch, text
from resonance.llm.settings import Text, TextRun
from resonance.llm.text import BYTE_BOS, BYTE_EOS, Packed, Sequences, Tokenizer, check_disjoint, documents, pack
from resonance.record.files import sha256

BYTES = Tokenizer.of_bytes()


def source(folder: Path, **fields: object) -> Text:
    return Text(**{"source": f"path:{folder}", "held_out": 2, **fields})


@pytest.fixture
def books(tmp_path: Path) -> Path:
    folder = tmp_path / "books"
    folder.mkdir()
    for number in range(7):
        words = np.random.default_rng(number).integers(97, 123, 200 + 50 * number)
        (folder / f"book{number}.txt").write_bytes(bytes(words.tolist()))
    return folder


def packed(folder: Path, tmp_path: Path, **fields: object) -> Packed:
    return pack(TextRun(text=source(folder, **fields), tokenizer="bytes"), BYTES, tmp_path / "packed")


def test_every_document_stands_between_bos_and_eos(books, tmp_path):
    made = packed(books, tmp_path)
    for row in made.documents.iter_rows(named=True):
        tokens = made.read(row["start"], row["num_tokens"])
        assert tokens[0] == BYTE_BOS and tokens[-1] == BYTE_EOS
        assert bytes(tokens[1:-1].tolist()) == (books / row["title"]).read_bytes()
    assert made.tokens.dtype == np.uint16


def test_held_out_documents_are_never_trained_on(books, tmp_path):
    made = packed(books, tmp_path)
    held_out, trained = (set(made.of(split)["document"]) for split in ("held_out", "train"))
    assert len(held_out) == 2 and len(trained) == 5 and not held_out & trained
    kept = [made.read(row["start"], row["num_tokens"]) for row in made.of("held_out").iter_rows(named=True)]
    sequences = Sequences(made, 32, 200, seed=0)
    seen = {sequences[i].tobytes() for i in range(len(sequences))}
    for tokens in kept:
        pieces = {tokens[i : i + 32].tobytes() for i in range(len(tokens) - 32)}
        assert not pieces & seen


def test_the_split_depends_on_no_order_and_no_name(books, tmp_path):
    before = set(packed(books, tmp_path).of("held_out")["document"])
    for number, path in enumerate(sorted(books.iterdir(), reverse=True)):
        path.rename(books / f"renamed{number}.txt")
    assert set(packed(books, tmp_path).of("held_out")["document"]) == before


def test_a_document_given_twice_is_packed_once(books, tmp_path):
    (books / "copy.txt").write_bytes((books / "book1.txt").read_bytes())
    assert len(packed(books, tmp_path).documents) == 7


def test_two_texts_that_share_a_document_are_found(books, tmp_path):
    trained = packed(books, tmp_path)
    everything = pack(TextRun(text=source(books, held_out=-1), tokenizer="bytes"), BYTES, tmp_path / "all")
    check_disjoint(trained, trained, "itself")
    with pytest.raises(ValueError, match="corpus all must share no document with the training text, got 5"):
        check_disjoint(trained, everything, "all")


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 300), count=st.integers(1, 40), seed=st.integers(0, 5))
def test_sequences_are_stretches_of_the_training_text(tmp_path_factory, length, count, seed):
    folder = tmp_path_factory.mktemp("t")
    (folder / "b").mkdir()
    for number in range(4):
        (folder / f"b/{number}.txt").write_bytes(bytes([97 + number]) * (40 + 31 * number))
    made = pack(TextRun(text=source(folder / "b", held_out=1), tokenizer="bytes"), BYTES, folder / "packed")
    rows = made.of("train").iter_rows(named=True)
    laid = np.concatenate([made.read(row["start"], row["num_tokens"]) for row in rows])
    if len(laid) < length:
        with pytest.raises(ValueError, match="must fit"):
            Sequences(made, length, count, seed)
        return
    sequences = Sequences(made, length, count, seed)
    assert len(sequences) == count
    wanted = {laid[i : i + length].tobytes() for i in range(0, len(laid) - length + 1, length)}
    epoch = [sequences[i].tobytes() for i in range(min(count, sequences.available))]
    assert set(epoch) <= wanted and all(len(sequences[i]) == length for i in range(count))
    assert len(sequences.order) == count
    first = sequences.order[: min(count, sequences.available)]
    assert len(set(first.tolist())) == len(first)  # an epoch is a permutation


def test_a_resumed_run_reads_on(books, tmp_path):
    made = packed(books, tmp_path)
    whole, rest = Sequences(made, 32, 60, seed=3), Sequences(made, 32, 40, seed=3, skip=20)
    assert all(np.array_equal(whole[20 + i], rest[i]) for i in range(40))


def test_first_of_chunk_takes_the_first_tokens_of_each(books, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "CHUNK", 100)
    made = packed(books, tmp_path)
    laid = np.concatenate([made.read(r["start"], r["num_tokens"]) for r in made.of("train").iter_rows(named=True)])
    sequences = Sequences(made, 30, 8, seed=0, chunks="first_of_65536")
    wanted = {laid[i : i + 30].tobytes() for i in range(0, len(laid) - 29, 100)}
    assert {sequences[i].tobytes() for i in range(8)} <= wanted
    with pytest.raises(ValueError, match="must fit"):
        Sequences(made, 101, 8, seed=0, chunks="first_of_65536")


def test_a_change_of_length_does_not_tokenize_again(books, tmp_path):
    made = packed(books, tmp_path)
    before = (made.folder / "tokens.bin").stat().st_mtime_ns
    assert len(Sequences(Packed(made.folder), 64, 4, seed=0)[0]) == 64
    assert (made.folder / "tokens.bin").stat().st_mtime_ns == before


def test_jsonl_and_columns(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    rows = [{"text": f"document {i}", "other": 1} for i in range(4)]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [content for _, content in documents(source(folder))] == [f"document {i}" for i in range(4)]
    assert len(list(documents(source(folder, max_documents=2)))) == 2
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1: column must be one of text, other, got 'body'"):
        list(documents(source(folder, column="body")))


def test_a_line_of_jsonl_ends_where_json_says(tmp_path):
    """U+2028 and U+0085 stand in strings as writers leave them; an empty line is no document."""
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": "a\u2028b\u0085c"}\n\n{"text": ["d", "e"]}\n', encoding="utf-8")
    assert [content for _, content in documents(source(folder))] == ["a\u2028b\u0085c", "d\n\ne"]
    for wrong in ("null", "5", '{"a": 1}', '["a", 1]', "[true]"):
        (folder / "a.jsonl").write_text(f'{{"text": {wrong}}}')
        with pytest.raises(ValueError, match=r"a\.jsonl, line 1: must be text or token ids, got \w+; mend column"):
            list(documents(source(folder)))


def test_token_ids_are_taken_as_they_are(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "a.jsonl").write_text("\n".join(json.dumps({"input_ids": [1, 5, 6 + i, 2]}) for i in range(3)))
    made = packed(folder, tmp_path, column="input_ids", held_out=1)
    assert made.read(0, 4).tolist() == [1, 5, 6, 2]
    (folder / "a.jsonl").write_text(json.dumps({"input_ids": [1, 258]}))
    with pytest.raises(ValueError, match="token ids must be < 258, the model's vocabulary, got 258"):
        packed(folder, tmp_path, column="input_ids", held_out=0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"include": ["*.md"]}, "no file matches include"),
        ({"held_out": 8}, "held_out must be at most the 7 documents"),
        ({"held_out": 3, "min_tokens": 500}, "held_out must be at most the 1 documents of 500 tokens"),
        ({"source": "path:/nowhere"}, "no such folder /nowhere"),
    ],
)
def test_a_text_that_is_not_there_is_one_line(books, tmp_path, fields, said):
    with pytest.raises(ValueError, match=said):
        packed(books, tmp_path, **fields)


def test_bytes_that_are_no_text(books, tmp_path):
    (books / "bad.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"bad\.txt: not UTF-8 text"):
        packed(books, tmp_path)


def test_crlf_and_byte_order_marks_are_not_content(tmp_path):
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    assert list(documents(source(folder))) == [("a.txt", "one\ntwo")]


def test_a_truncated_shard_is_found(books, tmp_path):
    made = packed(books, tmp_path)
    with (made.folder / "tokens.bin").open("rb+") as file:
        file.truncate(10)
    with pytest.raises(ValueError, match="must hold"):
        Packed(made.folder)


HUB = Text(source="hf:emozilla/govreport@main:own", held_out=-1)


def test_a_hub_without_its_package_or_its_network_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="needs the package datasets; pip install datasets"):
        list(documents(HUB))


def test_a_hub_out_of_reach_is_one_line(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def unreachable(*_: object, **__: object):
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ValueError, match=r"could not be read from the hub .*name the folder with path:"):
        list(documents(HUB))


def test_a_branch_of_the_hub_is_read_at_one_commit_which_is_written_down(monkeypatch, tmp_path):
    import huggingface_hub

    datasets, asked = pytest.importorskip("datasets"), []

    def info(repository: str, revision: str) -> SimpleNamespace:
        asked.append((repository, revision))
        return SimpleNamespace(sha="c" * 40)

    def rows(repository: str, configuration: str | None, **how: object) -> list[dict]:
        asked.append((repository, configuration, how["revision"]))
        return [{"text": "one"}, {"text": "two"}]

    monkeypatch.setattr(huggingface_hub, "dataset_info", info)
    monkeypatch.setattr(datasets, "load_dataset", rows)
    made = pack(TextRun(text=HUB, tokenizer="bytes"), BYTES, tmp_path)
    assert asked == [("emozilla/govreport", "main"), ("emozilla/govreport", "own", "c" * 40)]
    assert made.run["commit"] == "c" * 40


class Links:
    """An index of one archive, as a folder of links that pip is told of."""

    def __init__(self, folder, monkeypatch) -> None:
        self.folder = folder / "links"
        self.folder.mkdir()
        monkeypatch.setenv("PIP_FIND_LINKS", str(self.folder))
        monkeypatch.setenv("PIP_NO_INDEX", "1")

    def sdist(self, *members: tarfile.TarInfo, setup: str = "") -> str:
        """p-1.tar.gz of a text and of members without content; its source."""
        with tarfile.open(self.folder / "p-1.tar.gz", "w:gz") as archive:
            for name, text in (("p-1/texts/a.txt", "words"), ("p-1/setup.py", setup), ("p-1/PKG-INFO", "")):
                member = tarfile.TarInfo(name)
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
            for member in members:
                archive.addfile(member)
        return f"pypi:p==1#sha256={sha256(self.folder / 'p-1.tar.gz')}"


@pytest.fixture
def links(tmp_path, monkeypatch) -> Links:
    return Links(tmp_path, monkeypatch)


def test_a_source_package_is_unpacked_and_its_code_never_run(links, tmp_path):
    ran = tmp_path / "ran"
    fetch.fetch(links.sdist(setup=f"open({str(ran)!r}, 'w')"), tmp_path / "got")
    assert (tmp_path / "got/texts/a.txt").read_text() == "words" and not ran.exists()


@pytest.mark.parametrize("wrong", ["requests", "path:/etc", "pypi:p==1", "hf:owner/name"])
def test_a_source_that_cannot_be_fetched_is_one_line(wrong, tmp_path):
    with pytest.raises(
        ValueError, match="source must be pypi:NAME==VERSION#sha256=DIGEST or hf:OWNER/NAME@COMMIT, got"
    ):
        fetch.fetch(wrong, tmp_path / "got")


def test_a_package_of_other_bytes_is_refused(links, tmp_path):
    source = links.sdist()
    links.sdist(setup="other")
    with pytest.raises(ValueError, match=r"p-1\.tar\.gz has the SHA-256 \w{64}, and the preset names \w{64}; correct"):
        fetch.fetch(source, tmp_path / "got")
    assert not (tmp_path / "got").exists()


def outside(name: str, link: str = "", kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind if link else tarfile.REGTYPE, link
    return member


@pytest.mark.parametrize(
    "member",
    [
        outside("p-1/../../escaped"), outside("/tmp/escaped"), outside("p-1/link", "../../escaped"),
        outside("p-1/link", "/etc/passwd"), outside("p-1/hard", "../outside", tarfile.LNKTYPE),
        outside("p-1/device", "x", tarfile.CHRTYPE),
    ],
    ids=lambda member: f"{member.name} {member.linkname}",
)  # fmt: skip
def test_an_archive_stays_in_its_folder(member: tarfile.TarInfo, links, tmp_path):
    with pytest.raises(ValueError, match=r"^p-1\.tar\.gz cannot be unpacked: .*(p-1|escaped).*no archive of data$"):
        fetch.fetch(links.sdist(member), tmp_path / "got")
    assert {path.name for path in tmp_path.iterdir()} == {"links"}


@pytest.mark.parametrize("name, link", [("../escaped", False), ("/tmp/escaped", False), ("p/link", True)])
def test_a_wheel_stays_in_its_folder(name: str, link: bool, links, tmp_path):
    with zipfile.ZipFile(links.folder / "p-1-py3-none-any.whl", "w") as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = 0o120777 << 16 if link else 0o100644 << 16
        archive.writestr(member, "/etc/passwd")
    digest = sha256(links.folder / "p-1-py3-none-any.whl")
    with pytest.raises(ValueError, match=rf"cannot be unpacked: {name} (would leave the folder|is a link);"):
        fetch.fetch(f"pypi:p==1#sha256={digest}", tmp_path / "got")
    assert {path.name for path in tmp_path.iterdir()} == {"links"}


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_torn_archive_is_one_line(keep: float, links, tmp_path):
    links.sdist(setup="words " * 1000)
    archive = links.folder / "p-1.tar.gz"
    archive.write_bytes(archive.read_bytes()[: int(keep * archive.stat().st_size)])
    with pytest.raises(ValueError, match=r"p-1\.tar\.gz cannot be unpacked: .*it is damaged"):
        fetch.fetch(f"pypi:p==1#sha256={sha256(archive)}", tmp_path / "got")


def test_pips_settings_are_kept_to(links, monkeypatch, tmp_path):
    """A variable before a file, [download] before [global]; another command's section is another command's."""
    config = tmp_path / "pip.conf"
    config.write_text("[global]\ntimeout = 1\nproxy = a\n[download]\nproxy = b\ncert = c\n[install]\nproxy = d\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_CERT", "e")
    said = fetch._pip_settings()
    assert [said[key] for key in ("timeout", "proxy", "cert", "no-index")] == ["1", "b", "e", "1"]


def test_the_credentials_of_an_index_are_not_said(links, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "false")
    monkeypatch.setenv("PIP_INDEX_URL", "ftp://someone:secret@localhost/simple")
    with pytest.raises(ValueError, match="could not be fetched") as raised:
        fetch.fetch(f"pypi:q==1#sha256={'0' * 64}", tmp_path / "got")
    assert "secret" not in str(raised.value)


def test_an_archive_that_would_fill_the_disk_is_refused(links, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "MOST", 4)
    with pytest.raises(ValueError, match="would unpack to 5 bytes, more than 4"):
        fetch.fetch(links.sdist(), tmp_path / "got")


def test_a_package_that_no_index_has_is_one_line(links, tmp_path):
    with pytest.raises(ValueError, match=r"no-such-package-of-ours==0 could not be fetched \(no index of pip has it\)"):
        fetch.fetch(f"pypi:no-such-package-of-ours==0#sha256={'0' * 64}", tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_real_documents(tmp_path):
    folder = DATA / "govreport_real"
    if not folder.exists():
        pytest.skip(f"{folder.name} is not in {DATA}; set RESONANCE_TEST_DATA to its folder")
    made = packed(folder, tmp_path, column="input", held_out=4)
    assert len(made.of("held_out")) == 4 and len(made.documents) == 13  # one of the 14 is there twice
