"""Runs one notebook with papermill, in the repository's root, and keeps the result."""

import contextlib
import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diffusion_codec.book import cache, execution
from diffusion_codec.book.paths import STAGE_VARIABLE
from diffusion_codec.book.project import BookError, Parameters, Project, Request, UnknownParameterError

# A socket's full name may have about 100 bytes; a kernel's file name takes some 55 of them.
SOCKET_FOLDER_LENGTH = 45
START_TIMEOUT = 600
"""Seconds that a kernel may take to start: a busy machine needs more than the usual minute."""
ANSI_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def run(project: Project, notebook: str, request: Request, *, force: bool = False) -> bool:
    """Run the notebook unless its kept result is up to date; returns whether it ran.

    Raises UnknownParameterError for a name the notebook does not have, BookError when a cell fails.
    """
    key = project.key(notebook, request)
    if not force and cache.is_fresh(project, notebook, key):
        return False
    parameters = project.parameters(notebook, request)
    check_names(project, notebook, parameters)
    kept = cache.unmark(project, notebook)
    shown = ", ".join(f"{name}={value!r}" for name, value in parameters.items())
    print(f"running {notebook} ({'smoke, ' if request.smoke else ''}{shown})", flush=True)
    start, processor, load = time.monotonic(), _processor_seconds(), execution.load()
    before = _outputs(project, notebook)
    try:
        _execute(project, notebook, parameters)
    except BaseException:
        if kept is not None and _outputs(project, notebook) == before:
            cache.mark(project, notebook, kept)  # a slip in a parameter costs no result
        raise
    seconds = time.monotonic() - start
    took = execution.Execution(
        seconds=round(seconds, 1),
        processor_seconds=round(_processor_seconds() - processor, 1),
        load=load,
        finished=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        smoke=request.smoke,
        machine=execution.machine(),
        python=platform.python_version(),
        versions=execution.versions(),
    )
    execution.note(project.executed(notebook), took)
    cache.mark(project, notebook, key)
    print(f"ran {notebook} in {seconds:.0f} s", flush=True)
    return True


def _outputs(project: Project, notebook: str) -> dict[Path, int]:
    """The files that a notebook made for the book, with the time of their last change."""
    folder = project.stage / "figures" / notebook
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def _processor_seconds() -> float:
    """Of all kernels that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def known_parameters(project: Project, notebook: str) -> list[str]:
    """The names that the notebook's cell tagged `parameters` assigns."""
    import papermill

    with _working_directory(project.root):
        return list(papermill.inspect_notebook(str(project.source(notebook).relative_to(project.root))))


def check_names(project: Project, notebook: str, parameters: Parameters) -> None:
    """Raise UnknownParameterError, listing the right names, for a parameter the notebook does not have."""
    known = known_parameters(project, notebook)
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        named = ", ".join(map(repr, unknown))
        raise UnknownParameterError(
            f"{notebook} has no parameter {named}; it has: {', '.join(known) or 'none'}"
        )


def _execute(project: Project, notebook: str, parameters: Parameters) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    # Relative paths: papermill writes them into the notebook's metadata, which the book publishes.
    source = project.source(notebook).relative_to(project.root)
    target = project.executed(notebook).relative_to(project.root)
    part = target.with_suffix(".part.ipynb")
    with _working_directory(project.root), _environment(STAGE_VARIABLE, str(project.stage)):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            papermill.execute_notebook(
                str(source),
                str(part),
                parameters=parameters,
                kernel_name="python3",
                progress_bar=sys.stderr.isatty(),
                start_timeout=START_TIMEOUT,
                config=_kernel_settings(),
            )
        except PapermillExecutionError as error:
            raise BookError(_explain(notebook, part, error)) from error
        except DeadKernelError as error:
            raise BookError(f"{notebook}: its kernel died (out of memory?); see {part}") from error
        part.replace(target)


def _kernel_settings() -> Any:
    """Talk to the kernel through files, not TCP ports, where the system can and their names are short."""
    from jupyter_core.paths import jupyter_runtime_dir
    from traitlets.config import Config

    folder = jupyter_runtime_dir()
    if sys.platform == "win32" or len(folder) >= SOCKET_FOLDER_LENGTH:
        return Config({"KernelManager": {"transport": "tcp"}})
    Path(folder).mkdir(parents=True, exist_ok=True)
    # named here: jupyter_client would put them into the working folder, where two kernels take the same names
    return Config({"KernelManager": {"transport": "ipc", "ip": str(Path(folder) / f"book-{os.getpid()}")}})


def _explain(notebook: str, part: Path, error: Any) -> str:
    """The failing cell and its exception, as text."""
    lines = ANSI_COLOURS.sub("", "\n".join(error.traceback)).strip() or f"{error.ename}: {error.evalue}"
    return (
        f"{notebook}: cell {error.exec_count} failed with {error.ename}\n\n{lines}\n\n"
        f"The notebook up to there: {part}"
    )


@contextlib.contextmanager
def _working_directory(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
