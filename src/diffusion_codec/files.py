"""Reading what the user names and writing results whole or not at all; ``-`` is standard input or output."""

import io
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from diffusion_codec.errors import BadInputError, DiffusionCodecError, LimitExceededError

Source = str | Path | bytes | bytearray | memoryview

STANDARD_STREAM = "-"


class OutputError(DiffusionCodecError):
    """The result cannot be written where it was asked for."""


class TargetExistsError(OutputError):
    """The target exists and overwriting was not asked for."""


def describe(source: Source) -> str:
    """How messages name a source: its path in quotes, ``standard input``, or ``the data``."""
    if isinstance(source, bytes | bytearray | memoryview):
        return "the data"
    return "standard input" if str(source) == STANDARD_STREAM else f"'{source}'"


def open_source(source: Source, max_bytes: int) -> BinaryIO:
    """A seekable binary stream of a path, of ``-`` (standard input) or of bytes; the caller closes it.

    Pipes are read into memory, ``max_bytes`` at most. Errors: BadInputError for a missing or unreadable file,
    a directory or a closed standard input, LimitExceededError for a longer pipe.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if not isinstance(source, str | os.PathLike):
        raise BadInputError(f"expected a path or bytes, got {type(source).__name__}")
    with _reading(source):
        if str(source) == STANDARD_STREAM:
            if sys.stdin is None:
                raise BadInputError("standard input is closed: name a file, or give one on standard input")
            return io.BytesIO(_read_limited(sys.stdin.buffer, source, max_bytes))
        stream = Path(source).open("rb")  # noqa: SIM115 - the caller closes it
        if stream.seekable():
            return stream
        with stream:
            return io.BytesIO(_read_limited(stream, source, max_bytes))


def read_bytes(source: Source, max_bytes: int) -> bytes:
    """The whole content; errors as :func:`open_source`, LimitExceededError above ``max_bytes``."""
    with open_source(source, max_bytes) as stream, _reading(source):
        return _read_limited(stream, source, max_bytes)


def check_target(path: str | Path, force: bool = False) -> None:
    """Raise OutputError now if :func:`write_atomically` would refuse the target after the expensive work."""
    if str(path) == STANDARD_STREAM:
        if sys.stdout is None:
            raise OutputError("standard output is closed: redirect it or name a file")
        if sys.stdout.isatty():
            raise OutputError(
                "the result is binary and standard output is a terminal: redirect it or name a file"
            )
        return
    if str(path).endswith(("/", os.sep)):
        raise OutputError(f"'{path}' is the name of a directory, expected that of a file to write")
    try:
        _check_path(Path(path), force)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {_reason(error)}; choose another name") from error


def _check_path(path: Path, force: bool) -> None:
    if path.is_dir():
        raise OutputError(f"'{path}' is a directory, expected the name of a file to write")
    if _is_special(path):
        return
    if path.exists() and not force:
        raise _exists(path)
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise OutputError(f"the folder '{folder}' of the target does not exist: create it first")
    effective = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        raise OutputError(f"the folder '{folder}' of the target is not writable: choose another one")


def _exists(path: str | Path) -> TargetExistsError:
    return TargetExistsError(f"'{path}' exists already: choose another name, or overwrite it with --force")


def write_atomically(path: str | Path, data: bytes, force: bool = False) -> None:
    """Write the whole file or nothing: a temporary file beside it, synced to disk, then given the name.

    ``-`` is standard output; devices and pipes are written directly. An existing file is replaced only with
    ``force`` and keeps its permissions; without, one that appears meanwhile stays. Errors: OutputError, after which
    no temporary file is left.
    """
    check_target(path, force)
    try:
        if str(path) == STANDARD_STREAM:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        elif _is_special(Path(path)):
            Path(path).write_bytes(data)
        else:
            # Resolved, so that a symbolic link keeps pointing at the file that is replaced.
            _write_file(Path(os.path.realpath(path)), data, force)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        name = f"'{path}'"
        if str(path) == STANDARD_STREAM:
            name = "standard output"
            _discard_standard_output()
        raise OutputError(f"{name} could not be written: {_reason(error)}; nothing was kept") from error


def _write_file(target: Path, data: bytes, force: bool) -> None:
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        # os.open and not tempfile: the file shall have the permissions that the user's umask gives.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if force:
            _replace(temporary, target)
        else:
            _name_anew(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def let_go(lock: FileLock) -> None:
    """Release a lock and remove its file, once nobody in this process holds it any more."""
    path, last = Path(lock.lock_file), lock.lock_counter == 1
    if os.name == "nt":  # which removes no file that is open
        lock.release()
        if last:
            with suppress(OSError):
                path.unlink()
        return
    if last:  # first, or another process might be left with a lock on a file without a name
        path.unlink(missing_ok=True)
    lock.release()


def _replace(temporary: Path, target: Path) -> None:
    if target.exists():
        shutil.copymode(target, temporary)
    os.replace(temporary, target)


def _name_anew(temporary: Path, target: Path) -> None:
    """Name the file ``target`` unless another has that name: a link, unlike a rename, replaces nothing."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(target) from None
        os.replace(temporary, target)


def _discard_standard_output() -> None:
    """Keep the interpreter from failing once more when it flushes, on exit, what could not be written."""
    with suppress(OSError):  # a stand-in for standard output has no descriptor, and nothing to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_special(path: Path) -> bool:
    """A device, pipe or socket: nothing that a rename should replace."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _read_limited(stream: BinaryIO, source: Source, max_bytes: int) -> bytes:
    data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise LimitExceededError(f"{describe(source)} is larger than the {max_bytes} bytes that are accepted")
    return data


@contextmanager
def _reading(source: Source) -> Iterator[None]:
    """Turn the operating system's refusals into one line of advice."""
    try:
        yield
    except FileNotFoundError as error:
        raise BadInputError(f"{describe(source)} does not exist: check the name") from error
    except IsADirectoryError as error:
        raise BadInputError(f"{describe(source)} is a directory, expected a file") from error
    except PermissionError as error:
        raise BadInputError(f"{describe(source)} cannot be read: permission denied") from error
    except OSError as error:
        raise BadInputError(f"{describe(source)} cannot be read: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
