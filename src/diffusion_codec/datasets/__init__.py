"""Data sets by name: photographs with their origin and content hash, and Vimeo-90k septuplets.

`load("kodak")` finds the files through the data manifest (mirror, cache, network) and hands out pixels;
`load("holiday/")` takes the photographs of a folder.
"""

import logging
from pathlib import Path

from diffusion_codec import fetch
from diffusion_codec.datasets.images import (
    ImageDataset,
    ImageItem,
    from_files,
    from_hashes,
    from_rows,
    subset,
)
from diffusion_codec.datasets.photos import (
    OverlapError,
    assert_disjoint,
    fingerprint,
    overlap,
    photo_files,
    photographs,
)
from diffusion_codec.datasets.vimeo import Septuplets
from diffusion_codec.errors import BadInputError, MissingDataError

__all__ = [
    "ImageDataset",
    "ImageItem",
    "OverlapError",
    "Septuplets",
    "assert_disjoint",
    "checked",
    "fingerprint",
    "from_files",
    "from_hashes",
    "from_rows",
    "listed",
    "load",
    "load_or_sample",
    "names",
    "overlap",
    "photo_files",
    "photographs",
    "subset",
]

SAMPLE = "sample"
"""The data set that ships with this package."""

logger = logging.getLogger(__name__)


def names() -> tuple[str, ...]:
    """Names of the data sets of single photographs."""
    return tuple(name for name, entry in fetch.manifest().entries.items() if entry.kind == "images")


def checked(name: str) -> str:
    """`name`, of a data set of the manifest or of a folder. Raises BadInputError if it is neither's."""
    if name not in names() and not (name and Path(name).is_dir()):
        raise BadInputError(
            f"data set {name!r} is unknown, and there is no such folder; name a folder of photographs, or choose from "
            f"{', '.join(names())}"
        )
    return name


def load(name: str, limit: int | None = None) -> ImageDataset:
    """Photographs by their name in the manifest, or those below a folder; `limit` takes the first ones (`kodak[:4]`).

    A name of the manifest means that set, whatever folders there are: `kodak/` or `./kodak` is the folder.

    Raises BadInputError for an unknown name, MissingDataError where the files cannot be had.
    """
    if checked(name) in names():
        located = fetch.locate(name)
        files = fetch.image_files(fetch.manifest()[name], located.path)
        dataset = from_files(name, located.origin, files)
    else:
        dataset = photographs(Path(name))
    return dataset if limit is None else subset(dataset, min(limit, len(dataset)))


def listed(name: str) -> ImageDataset | None:
    """A data set without its pictures, as the manifest lists it; None where it has no list."""
    files = fetch.manifest()[name].files if name in names() else ()
    if not files:
        return None
    return from_hashes(name, "the pictures cannot be had here", {file.name: file.sha256 for file in files})


def load_or_sample(name: str, limit: int | None = None) -> tuple[ImageDataset, str]:
    """:func:`load`; or the embedded sample, under its own name, where that cannot be had, and a note saying so.

    Raises BadInputError for an unknown name, MissingDataError for a folder without photographs.
    """
    try:
        return load(name, limit), ""
    except MissingDataError as error:
        if name == SAMPLE or name not in names():
            raise
        logger.warning("%s", error)
        return load(SAMPLE, limit), f"(the data set {name} cannot be had here)"
