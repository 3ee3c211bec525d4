"""Where things are, from any working directory: the repository's root, a build folder, a results folder."""

import os
import tomllib
from pathlib import Path

from diffusion_codec.errors import MissingDataError

STAGE_VARIABLE = "DIFFUSION_CODEC_STAGE"


def repository_root(start: Path | None = None) -> Path:
    """The folder of this project's `pyproject.toml`, at or above `start` (default: the working directory).

    Falls back on the folders above this file, which is right for an editable install; raises
    MissingDataError where there is no clone at all.
    """
    here = Path(start or Path.cwd()).resolve()
    for folder in (here, *here.parents, *Path(__file__).resolve().parents):
        if _is_root(folder):
            return folder
    raise MissingDataError(
        f"no clone of this project at or above {here}; notebooks and book need one: change into it first"
    )


def output_folder(notebook: str) -> Path:
    """The folder for the pictures and data of one notebook, for example "03_rate_distortion"; made if absent.

    Under `make run` and `make book` it is `build/stage/figures/<notebook>`, which the book shows. A notebook
    run by hand writes to `build/figures/<notebook>`, so that the book never mixes results of two runs.
    """
    stage = os.environ.get(STAGE_VARIABLE)
    base = Path(stage) if stage else repository_root() / "build"
    folder = base / "figures" / notebook
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_root(folder: Path) -> bool:
    metadata = folder / "pyproject.toml"
    if not metadata.is_file():
        return False
    project = tomllib.loads(metadata.read_text(encoding="utf-8")).get("project", {})
    return bool(project.get("name") == "diffusion-codec")
