"""Fills the one page that raters see: with a server behind it, or with everything inside for use without one."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from diffusion_codec.files import write_atomically
from diffusion_codec.user_study import votes
from diffusion_codec.user_study.design import STIMULI, Sessions, Study, Trial

STATIC_SESSIONS = 24


def trial_view(trial: Trial, address: str = "") -> dict[str, Any]:
    """What the browser is told about a trial: pictures and size, nothing of codecs or of the trial's kind."""
    return {
        "original": address + trial.original.file,
        "a": address + trial.a.file,
        "b": address + trial.b.file,
        "width": trial.original.width,
        "height": trial.original.height,
    }


def served(study: Study) -> tuple[str, str]:
    """The page for a server and its content security policy."""
    data = _about(study) | {"mode": "server"}
    return _fill(data), _policy(images="'self' data:", connections="'self'")


def static(study: Study, folder: Path, sessions: int = STATIC_SESSIONS) -> str:
    """One HTML file with pictures and sessions inside; votes stay in the reader's browser.

    The file holds the key from trial to codec, since it has to write the csv itself: a reader who looks for it
    finds it.
    """
    planned = Sessions(study)
    plan = [planned[number] for number in range(sessions)]
    shown = sorted({s.file for session in plan for t in session for s in (t.original, t.a, t.b)})
    data = _about(study) | {
        "mode": "static",
        "fields": votes.FIELDS,
        "pictures": {name: _data_uri(folder / STIMULI / name) for name in shown},
        "sessions": [
            [trial_view(trial) | {"key": votes.key(study.id, trial)} for trial in session] for session in plan
        ],
    }
    policy = _policy(images="data:", connections="'none'", framed=False)
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return _fill(data).replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{meta}', 1)


def write_static(
    study: Study, folder: Path, target: Path, sessions: int = STATIC_SESSIONS, force: bool = True
) -> None:
    """Write the page without a server; without ``force`` no file is replaced. Errors: OutputError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, static(study, folder, sessions).encode(), force)


def _about(study: Study) -> dict[str, Any]:
    return {
        "study": study.id,
        "title": study.title,
        "ties": study.ties,
        "trials": study.trials,
        "dataset": study.dataset,
    }


def _template() -> str:
    return resources.files("diffusion_codec.user_study").joinpath("page.html").read_text(encoding="utf-8")


def _fill(data: dict[str, Any]) -> str:
    # In a script element only "<" can end the element or begin a comment.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return _template().replace("{{data}}", text)


def _policy(images: str, connections: str, framed: bool = True) -> str:
    template = _template()
    style, script = (_hashes(template, tag) for tag in ("style", "script"))
    parts = [
        "default-src 'none'",
        f"img-src {images}",
        f"connect-src {connections}",
        f"style-src {style}",
        f"script-src {script}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    if framed:  # has no meaning in a meta element
        parts.append("frame-ancestors 'none'")
    return "; ".join(parts)


def _hashes(template: str, tag: str) -> str:
    found: Sequence[str] = re.findall(rf"<{tag}>(.*?)</{tag}>", template, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


def _data_uri(path: Path) -> str:
    return "data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode()
