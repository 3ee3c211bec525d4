"""Every kept attack is refused with its documented error, in little memory, in little time, without a warning."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from typing import Any

import pytest

from diffusion_codec import _download, bitstream, codec_weights, fetch
from diffusion_codec.bitstream import Limits
from diffusion_codec.errors import DiffusionCodecError
from diffusion_codec.image_io import load_image
from tests.survival import ATTACKS, Row, Tally, in_child

FOLDER = Path(__file__).parent
KEPT = FOLDER / "kept"
GALLERY: list[dict[str, str]] = json.loads((FOLDER / "gallery.json").read_text(encoding="utf-8"))
MEMORY, SECONDS = 2**29, 120.0

READERS: dict[str, Callable[[Path, Path], Any]] = {
    "file": lambda path, _: bitstream.read(path.read_bytes()),
    "file, 1 GiB allowed": lambda path, _: bitstream.read(path.read_bytes(), Limits(max_memory_bytes=2**30)),
    "picture": lambda path, _: load_image(path),
    "weights": lambda path, _: codec_weights.load(path),
    "archive": lambda path, folder: fetch.unpack_images(path, folder / "unpacked"),
    "package": lambda path, _: _download._read_member(path, "package/w.bin"),
}


def test_the_gallery_is_whole() -> None:
    assert sorted(path.name for path in KEPT.iterdir()) == sorted(attack["file"] for attack in GALLERY)
    assert sum(path.stat().st_size for path in KEPT.iterdir()) < 2**20
    assert {attack["reader"] for attack in GALLERY} == READERS.keys()


@pytest.mark.parametrize("attack", GALLERY, ids=lambda attack: attack["file"])
def test_attack(attack: dict[str, str], tmp_path: Path, tally: Tally) -> None:
    def read() -> str:
        warnings.simplefilter("error")
        try:
            READERS[attack["reader"]](KEPT / attack["file"], tmp_path)
        except DiffusionCodecError as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())}"
        return "was read"

    ended = in_child(read, memory=MEMORY, seconds=SECONDS)
    answer = str(ended.value).replace(str(KEPT / attack["file"]), attack["file"])
    assert ended.value is not None, ended
    assert attack["words"] in answer
    assert answer.partition(":")[0] == attack["error"]
    assert list(tmp_path.iterdir()) == []
    about = f"{attack['file']}: {attack['about']}"
    tally(
        Row(ATTACKS, about, 1, 1, refused=1, note=shorten(answer.partition(" (")[0], 160, placeholder=" …"))
    )
