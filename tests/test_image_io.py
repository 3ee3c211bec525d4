"""Pictures of every kind come in as 8-bit sRGB; results are written whole or not at all."""

import errno
import io
import os
import resource
import stat
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo

from diffusion_codec import image_io
from diffusion_codec.bitstream import DEFAULT_LIMITS, MAGIC, Limits
from diffusion_codec.errors import BadInputError, LimitExceededError, OutOfMemoryError
from diffusion_codec.files import OutputError, TargetExistsError, check_target, read_bytes, write_atomically
from diffusion_codec.image_io import (
    Picture,
    image_format,
    load_image,
    picture_size,
    picture_suffixes,
    save_image,
)

RAMP = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
COLOUR = np.stack([RAMP, 255 - RAMP, RAMP // 2], axis=-1)


def encoded(image: Image.Image, name: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Root may read and write everything: become nobody for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def gamma_profile(space: str) -> bytes:
    """A minimal ICC profile of gamma 1.0: GRAY, or RGB with the primaries of sRGB."""
    curve = b"curv" + struct.pack(">II", 0, 0)

    def xyz(*values: float) -> bytes:
        return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in values))

    text = b"desc" + struct.pack(">II", 0, 7) + b"linear\0" + bytes(78)
    tags = {b"desc": text, b"wtpt": xyz(0.9642, 1.0, 0.8249)}
    if space == "GRAY":
        tags[b"kTRC"] = curve
    else:
        primaries = [(0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)]
        for letter, primary in zip(b"rgb", primaries, strict=True):
            tags[bytes([letter]) + b"TRC"] = curve
            tags[bytes([letter]) + b"XYZ"] = xyz(*primary)
    offset, table, body = 132 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    white = struct.pack(">3i", 63190, 65536, 54061)
    head = bytes(4) + struct.pack(">I", 0x02400000) + b"mntr" + space.encode().ljust(4) + b"XYZ " + bytes(12)
    head = bytes(4) + head + b"acsp" + bytes(28) + white + bytes(48)
    return struct.pack(">I", offset + len(body)) + head[4:] + struct.pack(">I", len(tags)) + table + body


@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "TGA", "JPEG2000"])
def test_formats(name: str) -> None:
    options = {"lossless": True} if name == "WEBP" else {}
    picture = load_image(encoded(Image.fromarray(COLOUR), name, **options))
    np.testing.assert_array_equal(picture.pixels, COLOUR)
    assert picture.pixels.dtype == np.uint8
    assert not picture.grayscale
    assert picture.notes == ()


@pytest.mark.parametrize("name", ["JPEG", "AVIF"])
def test_lossy_formats(name: str) -> None:
    flat = Image.new("RGB", (16, 16), (200, 100, 50))
    picture = load_image(encoded(flat, name, quality=95))
    assert np.abs(picture.pixels.astype(int) - [200, 100, 50]).max() <= 3


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (8000, 1), (33, 17)])
def test_sizes(size: tuple[int, int]) -> None:
    assert load_image(encoded(Image.new("RGB", size))).pixels.shape == (size[1], size[0], 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB"])
def test_grey_pictures_are_known_as_grey(mode: str) -> None:
    source = RAMP // 128 * 255 if mode == "1" else RAMP
    picture = load_image(encoded(Image.fromarray(source).convert(mode)))
    assert picture.grayscale
    np.testing.assert_array_equal(picture.pixels, np.stack([source] * 3, axis=-1))


def test_palette() -> None:
    palette = Image.fromarray(COLOUR).convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    picture = load_image(encoded(palette))
    np.testing.assert_array_equal(picture.pixels, np.asarray(palette.convert("RGB")))
    assert not picture.grayscale


@pytest.mark.parametrize("name", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(name: str) -> None:
    values = np.array([[0, 256, 257, 32768, 65535]], dtype=np.uint16)
    picture = load_image(encoded(Image.fromarray(values), name))
    assert picture.pixels[0, :, 0].tolist() == [0, 1, 1, 128, 255]
    assert picture.grayscale


def test_16_bit_colour() -> None:
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">6H", 0xFFFF, 0x8080, 0, 0x4040, 0xFFFF, 0x1010)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    assert load_image(data).pixels.tolist() == [[[255, 128, 0], [64, 255, 16]]]


def grey_tiff(bits: int, photometric: int, values: list[int]) -> bytes:
    """A TIFF of one row of an even number of pixels, as cameras and scanners write it: not compressed."""
    if bits == 12:
        pairs = zip(values[::2], values[1::2], strict=True)
        row = b"".join(struct.pack(">I", first << 12 | second)[1:] for first, second in pairs)
    else:
        row = np.array(values, "<u2" if bits == 16 else "<u1").tobytes()
    fields = {256: len(values), 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1}
    fields[279] = len(row)
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    begin = b"II*\0" + struct.pack("<I", 8 + len(row))
    return begin + row + struct.pack("<H", len(fields)) + tags + bytes(4)


@pytest.mark.parametrize(
    ("bits", "photometric", "values", "shown"),
    [
        (8, 1, [0, 100, 128, 255], [0, 100, 128, 255]),
        (8, 0, [0, 100, 128, 255], [255, 155, 127, 0]),
        (12, 1, [0, 1000, 2048, 4095], [0, 62, 128, 255]),
        (16, 1, [0, 1000, 32768, 65535], [0, 4, 128, 255]),
        (16, 0, [0, 1000, 32768, 65535], [255, 251, 127, 0]),
    ],
)
def test_grey_tiffs_have_their_own_black_and_white(
    bits: int, photometric: int, values: list[int], shown: list[int]
) -> None:
    picture = load_image(grey_tiff(bits, photometric, values))
    assert picture.pixels[0, :, 0].tolist() == shown
    assert picture.notes == ()


def test_transparent_16_bit_grey_is_laid_on_white() -> None:
    values = np.array([[0, 30000]], dtype=np.uint16)
    data = encoded(Image.fromarray(values))
    chunk = b"tRNS" + struct.pack(">H", 30000)
    chunk = struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk))
    at = data.index(b"IDAT") - 4
    assert load_image(data[:at] + chunk + data[at:]).pixels[0, :, 0].tolist() == [0, 255]


def test_floating_point_pictures_are_0_to_1() -> None:
    values = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    assert load_image(encoded(Image.fromarray(values), "TIFF")).pixels[0, :, 0].tolist() == [0, 128, 255]
    for wrong in (values * 255, values - 1, values * np.nan):
        with pytest.raises(BadInputError, match=r"expected 0 \(black\) to 1 \(white\)"):
            load_image(encoded(Image.fromarray(wrong), "TIFF"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    if mode == "P":
        image = Image.new("P", (3, 1))
        image.putpalette([100, 100, 100, 7, 7, 7, 9, 9, 9])
        image.putdata([0, 1, 1])
        data = encoded(image, transparency=bytes([255, 0]))
        expected = [100, 255, 255]
    else:
        image = Image.new(mode, (3, 1))
        grey = [(100, 255), (100, 0), (100, 128)]
        image.putdata(grey if mode == "LA" else [(g, g, g, a) for g, a in grey])
        data = encoded(image)
        expected = [100, 255, 177]
    picture = load_image(data)
    assert picture.pixels[0, :, 0].tolist() == expected
    assert picture.notes == ("its transparency is laid on white",)


def test_an_opaque_picture_loses_nothing() -> None:
    assert load_image(encoded(Image.new("RGBA", (3, 1), (1, 2, 3, 255)))).notes == ()


@pytest.mark.parametrize(("gamma", "noted"), [(1.0, True), (1 / 2.2, False)])
def test_values_of_another_gamma_are_noted(gamma: float, noted: bool) -> None:
    about = PngInfo()
    about.add(b"gAMA", struct.pack(">I", round(100000 * gamma)))
    notes = load_image(encoded(Image.new("RGB", (3, 1), "red"), pnginfo=about)).notes
    assert [note.startswith("its gamma of 1 is not applied") for note in notes] == [True] * noted


def test_heic() -> None:
    """What telephones write; the package turns the picture itself, so no orientation is left to apply."""
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (48, 32), (200, 40, 90))).save(buffer, quality=90)
    picture = load_image(buffer.getvalue())
    assert picture.pixels.shape == (32, 48, 3)
    assert np.abs(picture.pixels.astype(int) - (200, 40, 90)).max() < 4
    assert ".heic" in picture_suffixes()


def test_what_is_neither_a_path_nor_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    for source in (bytearray(path.read_bytes()), memoryview(path.read_bytes())):
        assert load_image(source).pixels.shape == (8, 8, 3)
    with path.open("rb") as stream, pytest.raises(BadInputError, match="a path or bytes, got BufferedReader"):
        load_image(stream)  # type: ignore[arg-type]


def test_cmyk() -> None:
    tiff = encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF")
    assert load_image(tiff).pixels[0, 0].tolist() == [255, 0, 0]
    jpeg = encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 128)), "JPEG", quality=95)
    assert np.abs(load_image(jpeg).pixels.astype(int) - 127).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.transpose(1, 0, 2),
        6: np.rot90(COLOUR, -1),
        7: COLOUR[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOUR),
    }
    picture = load_image(encoded(Image.fromarray(COLOUR), exif=exif))
    np.testing.assert_array_equal(picture.pixels, expected[orientation])


def test_broken_exif_does_no_harm() -> None:
    picture = load_image(encoded(Image.fromarray(COLOUR), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"))
    np.testing.assert_array_equal(picture.pixels, COLOUR)


def test_colour_profiles_are_converted_to_srgb() -> None:
    linear = round(255 * 0.2140)  # the linear light of sRGB 127
    rgb = encoded(Image.new("RGB", (2, 2), (linear,) * 3), icc_profile=gamma_profile("RGB"))
    assert np.abs(load_image(rgb).pixels.astype(int) - 127).max() <= 2
    grey = load_image(encoded(Image.new("L", (2, 2), linear), icc_profile=gamma_profile("GRAY")))
    assert np.abs(grey.pixels.astype(int) - 127).max() <= 2
    assert grey.grayscale
    assert grey.notes == ()
    red = encoded(Image.new("RGBA", (1, 1), (55, 0, 0, 255)), icc_profile=gamma_profile("RGB"))
    assert abs(int(load_image(red).pixels[0, 0, 0]) - 128) <= 2


def test_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = load_image(encoded(Image.fromarray(COLOUR), icc_profile=profile))
    assert np.abs(picture.pixels.astype(int) - COLOUR).max() <= 1


@pytest.mark.parametrize("profile", [b"no profile", gamma_profile("GRAY")])
def test_an_unusable_profile_is_noted(profile: bytes) -> None:
    picture = load_image(encoded(Image.fromarray(COLOUR), icc_profile=profile))
    np.testing.assert_array_equal(picture.pixels, COLOUR)
    assert "read as sRGB" in picture.notes[0]


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_read(name: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if name == "WEBP" else {}
    picture = load_image(encoded(frames[0], name, save_all=True, append_images=frames[1:], **options))
    assert (picture.pixels == [255, 0, 0]).all()
    assert picture.notes == ("only the first of its frames is used",)


def test_sizes_are_checked_before_pixels_are_decoded() -> None:
    whole = encoded(Image.new("1", (20000, 4)))
    header_only = whole[: whole.index(b"IDAT") + 4]
    with pytest.raises(LimitExceededError, match="20000 x 4"):
        load_image(header_only)
    bomb = encoded(Image.new("1", (16000, 16000)))
    with pytest.raises(LimitExceededError, match=r"too large|16000 x 16000"):
        load_image(bomb)
    with pytest.raises(LimitExceededError, match="6 x 4"):
        load_image(encoded(Image.fromarray(COLOUR)), Limits(max_pixels=23))


def test_a_bound_of_the_program_around_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(LimitExceededError, match=r"at most .* 20 in all \(Pillow's MAX_IMAGE_PIXELS\)"):
        load_image(encoded(Image.fromarray(COLOUR)))
    with pytest.raises(LimitExceededError, match=r"and 18 in all are read"):
        load_image(encoded(Image.fromarray(COLOUR)), Limits(max_pixels=18))


class SoftLimitError(Exception):
    """What a task queue raises in whatever runs when the time is up."""


@pytest.mark.parametrize("place", ["load", "getexif"])
@pytest.mark.parametrize("error", [SoftLimitError("time is up"), TimeoutError("time is up")])
def test_what_the_program_around_raises_passes(
    place: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, place, error)
    with pytest.raises(type(error), match="time is up"):
        load_image(encoded(Image.fromarray(COLOUR)))


def test_a_machine_without_memory_or_with_a_broken_disk_is_said_to_be_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encoded(Image.fromarray(COLOUR))
    raising(monkeypatch, "load", MemoryError())
    with pytest.raises(OutOfMemoryError, match="not enough memory for this picture"):
        load_image(data)
    raising(monkeypatch, "load", OSError(errno.EIO, "Input/output error"))
    with pytest.raises(BadInputError, match=r"the data cannot be read: Input/output error"):
        load_image(data)


@pytest.mark.parametrize(
    "error",
    [zlib.error("-3"), struct.error("4 bytes"), NotImplementedError("BLP"), OSError(errno.EINVAL, "seek")],
)
def test_what_decoders_raise_is_damage(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, "load", error)
    with pytest.raises(BadInputError, match=f"truncated or damaged .{type(error).__name__}: "):
        load_image(encoded(Image.fromarray(COLOUR)))


def raising(monkeypatch: pytest.MonkeyPatch, place: str, error: Exception) -> None:
    def fail(image: Image.Image) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile if place == "load" else PngImageFile, place, fail)


def test_pillows_warnings_are_not_shown_and_those_of_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # of the 24, which Pillow warns of
    data = encoded(Image.fromarray(COLOUR))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(data))
        assert [entry.category for entry in shown] == [Image.DecompressionBombWarning]
        with image_io._opened(data, DEFAULT_LIMITS):
            warnings.warn("the disk is full", RuntimeWarning, stacklevel=1)
        load_image(data)
    assert [str(entry.message) for entry in shown[1:]] == ["the disk is full"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_image(data)


def test_pictures_read_at_once_leave_the_filters_of_warnings_as_they_were() -> None:
    """Two that overlap as they do in threads: the first to begin is the first to end."""
    data, before = encoded(Image.fromarray(COLOUR)), list(warnings.filters)
    first, second = (image_io._opened(data, DEFAULT_LIMITS) for _ in range(2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert len(warnings.filters) == len(before) + 1
    second.__exit__(None, None, None)
    assert list(warnings.filters) == before


def test_empty_and_foreign_files(tmp_path: Path) -> None:
    cases = {
        b"": "is empty",
        b"just some text": "not a picture",
        MAGIC + bytes(40): "is a .dfc file.*use decompress",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n": "not a picture",
        bytes(1000): "not a picture",
    }
    for content, message in cases.items():
        path = tmp_path / "input"
        path.write_bytes(content)
        with pytest.raises(BadInputError, match=message) as caught:
            load_image(path)
        assert "input'" in str(caught.value)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "JPEG2000"])
def test_a_truncated_picture_is_an_error(name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), name)
    for share in (0.05, 0.5, 0.9):
        with pytest.raises(BadInputError):
            load_image(data[: int(len(data) * share)])


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "ICO", "TGA", "PPM"]),
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_pictures_are_read_or_refused(name: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(encoded(Image.fromarray(COLOUR), name))
    for position, value in changes:
        data[position % len(data)] = value
    try:
        picture = load_image(bytes(data), Limits(max_pixels=2**16))
    except BadInputError:
        return
    assert picture.pixels.ndim == 3


def test_missing_directory_and_unreadable(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="does not exist"):
        load_image(tmp_path / "nowhere.png")
    with pytest.raises(BadInputError, match="is a directory"):
        load_image(tmp_path)
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(Image.fromarray(COLOUR)))
    secret.chmod(0)
    with as_ordinary_user(), pytest.raises(BadInputError, match="permission denied"):
        load_image(secret)


def test_what_pillow_knows_by_name_only_is_no_picture() -> None:
    suffixes = picture_suffixes()
    assert {".png", ".jpg", ".tif", ".webp", ".gif", ".ppm"} < suffixes
    assert not {".h5", ".hdf", ".grib", ".bufr", ".wmf", ".emf", ".mpg", ".mpeg", ".eps"} & suffixes
    for data in (b"\x89HDF\r\n\x1a\n" + bytes(64), bytes.fromhex("000001b3 1400f013") + bytes(64)):
        with pytest.raises(BadInputError, match="not a picture in a format that can be read"):
            load_image(data)


def test_the_size_is_read_without_the_pixels(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(COLOUR))
    assert picture_size(data) == (6, 4)
    assert picture_size(data[:-20]) == (6, 4)
    with pytest.raises(BadInputError, match="is empty"):
        picture_size(b"")
    with pytest.raises(LimitExceededError):
        picture_size(data, Limits(max_pixels=23))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file whose reading fails")
def test_a_reading_error_is_reported() -> None:
    with pytest.raises(BadInputError, match=r"'/proc/self/mem' cannot be read: Input/output error"):
        load_image("/proc/self/mem")


def test_standard_input_and_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(COLOUR))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    np.testing.assert_array_equal(load_image("-").pixels, COLOUR)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    with pytest.raises(LimitExceededError, match="standard input is larger than the 10 bytes"):
        load_image("-", Limits(max_picture_bytes=10))
    read_end, write_end = os.pipe()
    os.write(write_end, data)
    os.close(write_end)
    np.testing.assert_array_equal(load_image(f"/dev/fd/{read_end}").pixels, COLOUR)
    os.close(read_end)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".tiff", ".bmp", ".ppm", ".webp"])
@pytest.mark.parametrize("grayscale", [False, True])
def test_what_is_saved_is_loaded(tmp_path: Path, suffix: str, grayscale: bool) -> None:
    pixels = np.stack([RAMP] * 3, axis=-1) if grayscale else COLOUR
    path = tmp_path / f"out{suffix}"
    save_image(Picture(pixels, grayscale), path)
    back = load_image(path)
    np.testing.assert_array_equal(back.pixels, pixels)
    assert back.grayscale == grayscale
    with Image.open(path) as image:
        assert image.mode == "L" or not grayscale or suffix == ".webp"
        assert image.format == image_format(path)


def test_save_as_jpeg(tmp_path: Path) -> None:
    save_image(Picture(np.full((8, 8, 3), 99, np.uint8)), tmp_path / "out.jpg")
    assert np.abs(load_image(tmp_path / "out.jpg").pixels.astype(int) - 99).max() <= 1


def test_what_a_format_cannot_hold_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"picture that can be written: \.png"):
        save_image(Picture(COLOUR), tmp_path / "out.doc")
    with pytest.raises(OutputError, match=r"WEBP cannot hold this picture of 16384 x 1 .*write a \.png"):
        save_image(Picture(np.zeros((1, 16384, 3), np.uint8)), tmp_path / "out.webp")
    assert list(tmp_path.iterdir()) == []


def test_writing_keeps_an_existing_file_unless_forced(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"precious")
    target.chmod(0o640)
    with pytest.raises(TargetExistsError, match="--force"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"precious"
    write_atomically(target, b"new", force=True)
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def appear(descriptor: int) -> None:
        (tmp_path / "out").write_bytes(b"precious")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    write_atomically(tmp_path / "free", b"new")
    monkeypatch.setattr(os, "fsync", appear)
    with pytest.raises(TargetExistsError, match=r"out' exists already: .*--force"):
        write_atomically(tmp_path / "out", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "free": b"new",
        "out": b"precious",
    }


def no_links(source: Path, target: Path) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_new_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "out", b"new")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", b"new", force=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_devices_are_written_not_replaced() -> None:
    before = os.stat("/dev/null")
    write_atomically("/dev/null", b"gone", force=True)
    assert os.stat("/dev/null").st_rdev == before.st_rdev
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_device_is_reported() -> None:
    with pytest.raises(OutputError, match="'/dev/full' could not be written: No space left"):
        write_atomically("/dev/full", b"x")


def test_a_write_that_fails_midway_leaves_nothing(tmp_path: Path) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, old[1]))
    try:
        with pytest.raises(OutputError, match="could not be written: File too large; nothing was kept"):
            write_atomically(tmp_path / "out", bytes(2**21))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_at_the_end_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fail(descriptor: int) -> None:
        raise failure

    (tmp_path / "out").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write_atomically(tmp_path / "out", b"new", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_bytes() == b"old"


def test_targets_are_checked_beforehand(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is the name of a directory"):
        check_target(f"{tmp_path}/new/")
    check_target(tmp_path / "free")
    check_target("/dev/null")
    with pytest.raises(OutputError, match="is a directory"):
        check_target(tmp_path, force=True)
    with pytest.raises(OutputError, match="does not exist: create it"):
        check_target(tmp_path / "nowhere" / "out")
    with pytest.raises(OutputError, match="File name too long"):
        check_target(tmp_path / ("x" * 300))
    with as_ordinary_user(), pytest.raises(OutputError, match="'/' of the target is not writable"):
        check_target("/out")
    (tmp_path / "closed").mkdir(mode=0)
    with as_ordinary_user(), pytest.raises(OutputError, match="Permission denied"):
        check_target(tmp_path / "closed" / "out")


def test_binary_data_is_not_sent_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    with pytest.raises(OutputError, match="redirect"):
        check_target("-")


def test_closed_streams_are_said_to_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(BadInputError, match="standard input is closed"):
        read_bytes("-", 10)
    with pytest.raises(OutputError, match="standard output is closed"):
        write_atomically("-", b"new")


def test_read_bytes_is_limited(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"12345")
    assert read_bytes(tmp_path / "data", 5) == b"12345"
    with pytest.raises(LimitExceededError, match="larger than the 4 bytes"):
        read_bytes(tmp_path / "data", 4)
