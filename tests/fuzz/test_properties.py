"""Every size from 1 x 1 to 600 x 600 and every kind of picture: what goes in comes out in shape."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffusion_codec import bitstream
from diffusion_codec.bitstream import DfcFile, Header
from diffusion_codec.codec import Codec
from diffusion_codec.image_io import load_image
from tests.survival import Row, Tally, amount
from tests.tiny import tiny_codec

LARGEST = 600
# Pillow's modes, each with a format that can hold it.
MODES = {
    "1": "PNG", "L": "PNG", "P": "PNG", "LA": "PNG", "RGB": "PNG", "RGBA": "PNG", "I;16": "PNG", "I": "TIFF",
    "CMYK": "TIFF", "YCbCr": "TIFF", "LAB": "TIFF", "F": "TIFF", "RGBX": "TIFF", "I;16B": "TIFF",
}  # fmt: skip
sides = st.integers(1, LARGEST)


def exhaustive_settings(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


def test_the_header_of_every_size(tally: Tally) -> None:
    step, tried, back = amount(7, 1), 0, 0
    for width in range(1, LARGEST + 1, step):
        for height in range(1, LARGEST + 1):
            header = Header(width, height, b"1234", 5, (0, 0, 0, 0), (0, 0, 0, 0))
            data = bitstream.write(DfcFile(header, b"", b"\0"))
            tried += 1
            back += bitstream.read(data).header == header
    what = f"headers of {'every size' if step == 1 else 'sizes'} from 1 x 1 to 600 x 600, written and read"
    tally(Row("Sizes and modes", what, tried, back, accepted=back))


def picture(mode: str, width: int, height: int) -> Image.Image:
    grey = (np.add.outer(np.arange(height), np.arange(width)) % 256).astype(np.uint8)
    if mode in ("I;16", "I", "I;16B"):
        wide = Image.fromarray((grey.astype(np.uint16) * 257).astype("<u2"))
        return wide if mode == "I;16" else wide.convert(mode)
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / 255)
    if mode == "LAB":
        return Image.merge("LAB", [Image.fromarray(grey)] * 3)
    if mode == "RGBX":
        return Image.fromarray(grey).convert("RGB").convert(mode)
    return Image.fromarray(grey).convert(mode)


def file_of(mode: str, width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    picture(mode, width, height).save(buffer, MODES[mode])
    return buffer.getvalue()


def test_pictures_of_every_mode_and_any_size(tally: Tally) -> None:
    seen = []

    @exhaustive_settings(amount(40, 500))
    @given(mode=st.sampled_from(sorted(MODES)), width=sides, height=sides)
    def loads(mode: str, width: int, height: int) -> None:
        loaded = load_image(file_of(mode, width, height))
        assert loaded.pixels.shape == (height, width, 3)
        assert loaded.pixels.dtype == np.uint8
        assert loaded.notes == ()
        seen.append(mode)

    for mode in MODES:
        loaded = load_image(file_of(mode, 3, 2))
        assert loaded.pixels.shape == (2, 3, 3)
    loads()
    count = len(seen) + len(MODES)
    what = f"pictures of {len(MODES)} modes, any size from 1 x 1 to 600 x 600, read"
    tally(Row("Sizes and modes", what, count, count, accepted=count))


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return tiny_codec(Path(tmp_path_factory.mktemp("codec")))


def test_there_and_back_at_any_size(codec: Codec, tally: Tally) -> None:
    seen = []

    @exhaustive_settings(amount(5, 40))
    @given(width=sides, height=sides, seed=st.none() | st.integers(0, 65535), grey=st.booleans())
    def there_and_back(width: int, height: int, seed: int | None, grey: bool) -> None:
        pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        file = codec.compress(pixels, grayscale=grey, dither_seed=seed)
        back = codec.decompress(file.data, steps=1)
        assert back.pixels.shape == pixels.shape
        assert back.symbols_sha256 == file.symbols_sha256
        seen.append(width * height)

    there_and_back()
    what = "any size from 1 x 1 to 600 x 600, with and without dither and colour, compressed and decompressed"
    tally(Row("Sizes and modes", what, len(seen), len(seen), accepted=len(seen)))
