"""Sphinx extension: the site needs no network. Copies the scripts it uses, drops those it would fetch."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

MATHJAX = "mathjax/tex-svg.js"
PLOTLY = "plotly.min.js"


def package_file(module: str, *parts: str) -> Path:
    """A file inside an installed package, found without importing it (one name has hyphens)."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {module} is not installed: run `make setup`")
    return Path(spec.origin).parent.joinpath(*parts)


def copy_scripts(app: Sphinx, exception: Exception | None) -> None:
    """Put MathJax, and plotly where it is installed, into the site's `_static` folder."""
    if exception is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    (static / "mathjax").mkdir(parents=True, exist_ok=True)
    shutil.copy2(package_file("sphinx-mathjax-offline", "static", "mathjax", "tex-svg.js"), static / MATHJAX)
    if importlib.util.find_spec("plotly"):
        shutil.copy2(package_file("plotly", "package_data", PLOTLY), static / PLOTLY)


def mentions_thebe(entry: Any) -> bool:
    """Whether a script or style entry is Thebe's, by its file name or by its inline text."""
    parts = (getattr(entry, "filename", entry), getattr(entry, "attributes", {}).get("body"))
    return any("thebe" in str(part).lower() for part in parts)


def drop_remote_scripts(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """Thebe would be fetched from a server on every page; live code is not what this site offers."""
    for key in ("script_files", "css_files"):
        context[key] = [entry for entry in context.get(key, []) if not mentions_thebe(entry)]


def announce_smoke(app: Sphinx, config: Any) -> None:
    """Say on every page when the numbers come from the small parameters."""
    if os.environ.get("DIFFUSION_CODEC_SMOKE"):
        config.html_theme_options["announcement"] = (
            "Built with the small <em>smoke</em> parameters: the figures show that everything runs, "
            "not what the method achieves."
        )


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("config-inited", announce_smoke)
    app.connect("html-page-context", drop_remote_scripts, priority=900)
    app.connect("build-finished", copy_scripts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
