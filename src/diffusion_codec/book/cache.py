"""What has been run and what was last asked for: small files in `build/` that survive until `make clean`."""

import json
from pathlib import Path

from diffusion_codec.book.project import Parameters, Project, Request


def is_fresh(project: Project, notebook: str, key: str) -> bool:
    """Whether the kept result of the notebook was made from exactly this key."""
    stamp = _stamp(project, notebook)
    return project.executed(notebook).is_file() and stamp.is_file() and stamp.read_text() == key


def mark(project: Project, name: str, key: str) -> None:
    """Record that the result of a notebook (or "site") belongs to this key."""
    _write(_stamp(project, name), key)


def unmark(project: Project, name: str) -> str | None:
    """Forget the result of a notebook, before it is made anew: a failed run must not look finished. Its key, if any."""
    stamp = _stamp(project, name)
    key = stamp.read_text() if stamp.is_file() else None
    stamp.unlink(missing_ok=True)
    return key


def site_is_fresh(project: Project, key: str) -> bool:
    """Whether the site in `build/html` was built from exactly this key."""
    stamp = _stamp(project, "site")
    return (project.build / "html" / "index.html").is_file() and stamp.is_file() and stamp.read_text() == key


def remember(project: Project, notebook: str, request: Request) -> None:
    """Keep what `make run` was asked for, so that the book follows; a run with the defaults forgets it."""
    path = _asked(project, notebook)
    if not request.overrides:
        path.unlink(missing_ok=True)
        return
    _write(path, json.dumps({"smoke": request.smoke, "overrides": request.overrides}, default=str))


def asked(project: Project, notebook: str) -> Request | None:
    """The request of the last `make run` with parameters of its own, if there was one."""
    path = _asked(project, notebook)
    if not path.is_file():
        return None
    kept = json.loads(path.read_text())
    overrides: Parameters = kept["overrides"]
    return Request(smoke=bool(kept["smoke"]), overrides=overrides)


def _stamp(project: Project, name: str) -> Path:
    return project.build / "hash" / name


def _asked(project: Project, notebook: str) -> Path:
    return project.build / "asked" / f"{notebook}.json"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)
