"""Sphinx extension: buttons that open a chapter on Colab or Binder, and lead to the repository, where one is known.

The public address of the repository stands in one place: `DIFFUSION_CODEC_REPOSITORY`, else what GitHub says of
itself in its own builds, else the git remote `origin`. Without any, the book shows only its download button.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

HOSTED = re.compile(
    r"(?:https://|ssh://git@|git@)(github\.com|gitlab\.com)[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?$"
)
BRANCH = "main"
LAUNCHERS = {"colab_url": "https://colab.research.google.com", "binderhub_url": "https://mybinder.org"}


def public_address(folder: Path, environment: Mapping[str, str] = os.environ) -> str | None:
    """The repository's address on GitHub or GitLab, None where it has none that others could open."""
    named = environment.get("DIFFUSION_CODEC_REPOSITORY")
    if not named and "GITHUB_REPOSITORY" in environment:
        named = (
            f"{environment.get('GITHUB_SERVER_URL', 'https://github.com')}/{environment['GITHUB_REPOSITORY']}"
        )
    if not named:
        command = ["git", "-C", str(folder), "remote", "get-url", "origin"]
        named = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    found = HOSTED.match(named)
    return f"https://{found[1]}/{found[2]}" if found else None


def add_buttons(app: Sphinx, config: Any) -> None:
    """Tell the theme; the sources are staged as they lie in the repository, so the paths are the same."""
    address = public_address(Path(app.srcdir))
    if address is None:
        return
    options = config.html_theme_options
    options |= {"repository_url": address, "repository_branch": BRANCH, "path_to_docs": ""}
    options |= {"use_repository_button": True, "use_issues_button": True}
    options["launch_buttons"] = options.get("launch_buttons", {}) | LAUNCHERS


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx, ahead of the theme."""
    app.connect("config-inited", add_buttons, priority=400)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
