"""A data set of photographs: a name, where it came from, a hash of its content, and pixels on demand."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffusion_codec import fetch
from diffusion_codec.errors import BadInputError, MissingDataError

if TYPE_CHECKING:
    import datasets

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ImageItem:
    """One photograph; `path` is None where it came from the hub without a file of its own."""

    id: str
    path: Path | None
    _rows: "datasets.Dataset" = field(repr=False)
    _index: int = field(repr=False)

    def pixels(self) -> Pixels:
        """uint8 H x W x 3, turned as its EXIF orientation says. BadInputError if damaged, MissingDataError if absent.

        Unlike `image_io.load_image`, it reads the stored values as sRGB, without an embedded colour profile, and
        clips 16 bits: everything measured so far was measured on these pixels.
        """
        try:
            picture = self._rows[self._index]["image"]
            if picture is not None:
                return np.array(picture.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise BadInputError(f"{self.path or self.id} cannot be decoded: {error}") from error
        raise MissingDataError(f"the photograph {self.id} cannot be had here: only its hash is known")


@dataclass(frozen=True, eq=False)
class ImageDataset(Sequence[ImageItem]):
    """Photographs in a fixed order over a Hugging Face `datasets.Dataset` with the columns id, path, image.

    `sha256` is `fetch.listing_sha256` of the files' hashes: the same files have the same hash wherever they
    lie. `origin` says where they were found; both go into every result.
    """

    name: str
    origin: str
    sha256: str
    rows: "datasets.Dataset" = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> ImageItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[ImageItem]: ...
    def __getitem__(self, index: int | slice) -> ImageItem | list[ImageItem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, no number {index}")
        index %= len(self)
        path = self._column("path")[index]
        return ImageItem(self._column("id")[index], Path(path) if path else None, self.rows, index)

    def __iter__(self) -> Iterator[ImageItem]:
        return (self[i] for i in range(len(self)))

    def _column(self, name: str) -> Any:
        return self.rows[name]


def from_files(name: str, origin: str, files: Sequence[Path]) -> ImageDataset:
    """A data set of image files, in the order given; ids are file names without suffix.

    Raises MissingDataError for no files, BadInputError for two files of one id.
    """
    if not files:
        raise MissingDataError(f"{name}: no image was given or found; a data set needs one or more")
    ids = [path.stem for path in files]
    twice = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise BadInputError(
            f"{name}: file names must differ in more than suffix and folder: {', '.join(twice[:3])}"
        )
    hashes = {path.name: fetch.sha256_of(path) for path in files}
    return ImageDataset(name, origin, fetch.listing_sha256(hashes), _rows(ids, [str(path) for path in files]))


def from_hashes(name: str, origin: str, hashes: Mapping[str, str]) -> ImageDataset:
    """A data set of which only file names and their SHA-256 are known: whose numbers these are, but no pixels."""
    ids = [Path(file).stem for file in hashes]
    return ImageDataset(name, origin, fetch.listing_sha256(hashes), _rows(ids, [None] * len(ids)))


def from_rows(name: str, origin: str, rows: "datasets.Dataset", image: str = "image") -> ImageDataset:
    """Any Hugging Face data set with an image column, for instance one loaded from the hub.

    Its hash is over the encoded bytes of the images; ids are running numbers.
    """
    import datasets

    encoded = rows.select_columns([image]).rename_column(image, "image")
    ids = [f"{index:06d}" for index in range(len(encoded))]
    raw = encoded.cast_column("image", datasets.Image(decode=False))
    hashes = {
        i: hashlib.sha256(_encoded_bytes(row["image"])).hexdigest() for i, row in zip(ids, raw, strict=True)
    }
    decoded = encoded.cast_column("image", datasets.Image()).add_column("id", ids)
    return ImageDataset(
        name, origin, fetch.listing_sha256(hashes), decoded.add_column("path", [""] * len(ids))
    )


def _encoded_bytes(image: dict[str, Any]) -> bytes:
    data: bytes | None = image["bytes"]
    return data if data is not None else Path(image["path"]).read_bytes()


def _rows(ids: list[str], paths: Sequence[str | None]) -> "datasets.Dataset":
    import datasets

    table = datasets.Dataset.from_dict({"id": ids, "path": paths, "image": paths})
    return table.cast_column("image", datasets.Image())


def subset(dataset: ImageDataset, count: int) -> ImageDataset:
    """The first `count` images under a name and a hash of their own (`kodak[:4]`), never the whole's."""
    if not 1 <= count <= len(dataset):
        raise BadInputError(
            f"{dataset.name} has {len(dataset)} images, so 1 to {len(dataset)} of them, not {count}"
        )
    if count == len(dataset):
        return dataset
    files = [item.path for item in dataset[:count]]
    name = f"{dataset.name}[:{count}]"
    if all(files):
        return from_files(name, dataset.origin, [path for path in files if path])
    return from_rows(name, dataset.origin, dataset.rows.select(range(count)))
