"""The notebooks as files, with their parameters and the hash of all that decides their outputs."""

import hashlib
import json
import os
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from diffusion_codec.errors import BadInputError, DiffusionCodecError

Parameters = dict[str, Any]
IGNORED_FOLDERS = {"__pycache__", ".ipynb_checkpoints"}


class BookError(DiffusionCodecError):
    """A notebook failed or the book cannot be built."""


class UnknownParameterError(BadInputError):
    """A parameter was given that the notebook does not have."""


@dataclass(frozen=True)
class Request:
    """Which parameters a notebook runs with: the standard or the smoke set, and what overrides them."""

    smoke: bool = False
    overrides: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class Project:
    """The notebooks of one repository and where their results are kept."""

    root: Path

    @property
    def build(self) -> Path:
        """Everything made here; `make clean` removes it."""
        return self.root / "build"

    @property
    def stage(self) -> Path:
        """The folder the book is built from."""
        return self.build / "stage"

    @cached_property
    def notebooks(self) -> tuple[str, ...]:
        """The names of all notebooks, in reading order, without their suffix."""
        return tuple(sorted(path.stem for path in (self.root / "notebooks").glob("[0-9]*.ipynb")))

    def find(self, name: str) -> str:
        """The one notebook meant by "03", "03_rate" or "notebooks/03_rate_distortion.ipynb"."""
        stem = Path(name).name.removesuffix(".ipynb")
        found = [nb for nb in self.notebooks if nb == stem] or [
            nb for nb in self.notebooks if stem and nb.startswith(stem)
        ]
        if len(found) != 1:
            what = "no notebook" if not found else "more than one notebook"
            raise BadInputError(f"{what} is named {name!r}; there are: {', '.join(self.notebooks) or 'none'}")
        return found[0]

    def source(self, notebook: str) -> Path:
        """The notebook as written, without outputs."""
        return self.root / "notebooks" / f"{notebook}.ipynb"

    def executed(self, notebook: str) -> Path:
        """The notebook as last run, with outputs."""
        return self.stage / "notebooks" / f"{notebook}.ipynb"

    def parameters_file(self, notebook: str, smoke: bool) -> Path:
        """The file with the notebook's standard or smoke parameters."""
        folder = self.root / "notebooks" / "params"
        return (folder / "smoke" if smoke else folder) / f"{notebook}.yaml"

    def parameters(self, notebook: str, request: Request) -> Parameters:
        """The standard or smoke set with the overrides of the request laid over it."""
        path = self.parameters_file(notebook, request.smoke)
        if not path.is_file():
            raise BookError(f"{self._relative(path)} is missing: every notebook needs its set of parameters")
        return parse_parameters(path.read_text(encoding="utf-8"), self._relative(path)) | request.overrides

    def key(self, notebook: str, request: Request) -> str:
        """SHA-256 of all that decides the notebook's output; equal keys mean that nothing has to run."""
        upstream = self._upstream.get(notebook, [])
        parameters = self.parameters(notebook, request)
        parts = [
            *code_cells(self.source(notebook)),
            json.dumps(parameters, sort_keys=True, default=str),
            self._common_key,
            digest_files(self.root, (path for glob in upstream for path in sorted(self.root.glob(glob)))),
            digest_files(self.root, named_files(self.root, parameters.values())),
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @cached_property
    def _common_key(self) -> str:
        """Hash of what every notebook depends on: the package with its weights, versions, data at hand."""
        files = [
            *walk(self.root / "src"),
            self.root / "constraints.txt",
            self.root / "data" / "manifest.toml",
        ]
        mirror = os.environ.get("DIFFUSION_CODEC_MIRROR", "../shared")
        present = sorted(path.name for path in (self.root / mirror / "data").glob("*"))
        return digest_files(self.root, files) + json.dumps([mirror, present])

    @cached_property
    def _upstream(self) -> dict[str, list[str]]:
        """Measured results each notebook reads: lines `03_x = ["data/results/*.csv"]` of upstream.toml."""
        path = self.root / "notebooks" / "upstream.toml"
        if not path.is_file():
            return {}
        upstream: dict[str, list[str]] = tomllib.loads(path.read_text(encoding="utf-8"))
        unknown = sorted(set(upstream) - set(self.notebooks))
        if unknown:
            raise BookError(f"{self._relative(path)} names notebooks that do not exist: {', '.join(unknown)}")
        return upstream

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def parse_parameters(text: str, where: str) -> Parameters:
    """Parameters from a YAML mapping such as `bitrates: [0.1, 0.2]`; an empty text gives none."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInputError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise BadInputError(
            f"{where}: expected 'name: value', for example 'bitrates: [0.1, 0.2]'; got {text!r}"
        )
    return values


def code_cells(notebook: Path) -> list[str]:
    """The sources of the code cells with their tags; prose is left out, it decides no output."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [
        "".join(cell["source"]) + repr(cell["metadata"].get("tags", []))
        for cell in cells
        if cell["cell_type"] == "code"
    ]


def walk(folder: Path) -> Iterator[Path]:
    """All files under a folder in a stable order, without caches and package metadata."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(p in IGNORED_FOLDERS or p.endswith(".egg-info") for p in parts):
            yield path


def named_files(root: Path, values: Iterable[Any]) -> Iterator[Path]:
    """The files that values, or lists of them, name from `root`, and those in the folders they name."""
    for value in values:
        if isinstance(value, list):
            yield from named_files(root, value)
        elif isinstance(value, str) and value:
            path = root / value
            if os.path.isdir(path):  # pathlib's own raises for a text that is too long for a name
                yield from walk(path)
            elif os.path.isfile(path):
                yield path


def digest_files(root: Path, files: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of files; those that do not exist count as absent."""
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            name = path.relative_to(root) if path.is_relative_to(root) else path
            digest.update(name.as_posix().encode() + b"\0")
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
