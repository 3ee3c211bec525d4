"""Each limit of the public interface: accepted at the limit, refused one above."""

import dataclasses
import io
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_codec import bitstream
from diffusion_codec.bitstream import DEFAULT_LIMITS, DfcFile, Header, Limits, symbol_count
from diffusion_codec.codec import Codec
from diffusion_codec.errors import LimitExceededError, OutOfMemoryError, reports_memory
from diffusion_codec.files import read_bytes
from diffusion_codec.image_io import load_image
from diffusion_codec.memory import BYTES_PER_PIXEL, held_memory, peak_memory
from tests.survival import Row, Tally, amount, in_child
from tests.tiny import tiny_codec

WIDTH, HEIGHT = 41, 23
FILE = DfcFile(Header(WIDTH, HEIGHT, b"1234", 5, (0,) * 4, (0,) * 4), b"", b"abc")
DATA = bitstream.write(FILE)


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return tiny_codec(tmp_path_factory.mktemp("codec"))


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("max_side", WIDTH),
        ("max_pixels", WIDTH * HEIGHT),
        ("max_symbols", 4 * 6 * 3),
        ("max_memory_bytes", BYTES_PER_PIXEL * WIDTH * HEIGHT),
        ("max_file_bytes", len(DATA)),
    ],
)
def test_limits_of_a_file(name: str, exact: int, tally: Tally) -> None:
    assert bitstream.read(DATA, Limits(**{name: exact})) == FILE
    with pytest.raises(LimitExceededError):
        bitstream.read(DATA, Limits(**{name: exact - 1}))
    tally(Row("Limits", f"{name}: at the limit and one above", 2, 2, refused=1, accepted=1))


def test_limit_of_steps(codec: Codec, tally: Tally) -> None:
    data = codec.compress(np.zeros((8, 8, 3), np.uint8)).data
    assert codec.decompress(data, 3, Limits(max_steps=3)).pixels.shape == (8, 8, 3)
    for steps, limit in ((4, 3), (-1, 3), (DEFAULT_LIMITS.max_steps + 1, DEFAULT_LIMITS.max_steps)):
        with pytest.raises(LimitExceededError, match=f"{steps} denoising steps"):
            codec.decompress(data, steps, Limits(max_steps=limit))
    tally(Row("Limits", "max_steps: at the limit and one above", 4, 4, refused=3, accepted=1))


def test_limit_of_bytes(tally: Tally) -> None:
    assert read_bytes(DATA, len(DATA)) == DATA
    with pytest.raises(LimitExceededError):
        read_bytes(DATA, len(DATA) - 1)
    tally(Row("Limits", "bytes of a pipe: at the limit and one above", 2, 2, refused=1, accepted=1))


def test_what_cannot_be_read_is_not_written(codec: Codec) -> None:
    with pytest.raises(LimitExceededError, match="16385"):
        codec.compress(np.zeros((1, 16385, 3), np.uint8))


def test_symbols_are_counted_as_the_latent_has_them() -> None:
    assert symbol_count(1, 1) == symbol_count(8, 8) == 4
    assert symbol_count(9, 8) == symbol_count(8, 9) == 8
    assert symbol_count(768, 512) == 4 * 96 * 64


def test_default_limits_agree_with_each_other() -> None:
    """A picture that side and pixels allow is not refused for its symbols or its memory."""
    for width, height in ((16384, 8192), (11585, 11585), (16383, 8191), (8192, 16384)):
        if width * height <= DEFAULT_LIMITS.max_pixels:
            DEFAULT_LIMITS.check_size(width, height)


def test_memory_grows_no_faster_than_is_declared(codec: Codec, tally: Tally) -> None:
    """Peak memory at two heights, both of several tiles, each decoded in a fork of its own.

    At both the strips of the entropy model are about as large as they get: what has a bound is no growth.
    """
    coded = Codec.from_pretrained() if amount(0, 1) else codec
    width, low, high = 512, 4096, 12288
    small = coded.compress(np.zeros((64, 64, 3), np.uint8)).data
    header = dataclasses.replace(bitstream.read(small).header, width=width)

    def decoded(height: int, grayscale: bool = False) -> tuple[int, ...]:
        asked = dataclasses.replace(header, height=height, grayscale=grayscale)
        return coded.decompress(bitstream.write(DfcFile(asked, b"", b"\0")), steps=1).pixels.shape

    def coding(height: int) -> tuple[int, ...]:
        coded.compress(np.zeros((height, width, 3), np.uint8))
        return (height, width, 3)

    grey = partial(decoded, grayscale=True)
    for name, run in (("decoding", decoded), ("decoding grey", grey), ("coding", coding)):
        peaks = []
        for height in (low, high):
            ended = in_child(partial(run, height), seconds=600)
            assert ended.value == (height, width, 3), ended
            peaks.append(ended.peak_bytes)
        grown = (peaks[1] - peaks[0]) / (width * (high - low))
        assert grown <= BYTES_PER_PIXEL
        # below 0, what the process takes apart from the picture varied by more than the picture took
        note = f"measured {max(grown, 0):.0f} bytes a pixel of {BYTES_PER_PIXEL} declared"
        tally(Row("Limits", f"memory of {name} grows no faster than declared", 1, 1, accepted=1, note=note))


def test_a_program_stays_within_the_memory_it_is_allowed(tmp_path: Path, tally: Tally) -> None:
    """One large tile would pass the cap, many small ones do not; a cap too small says by how much."""
    picture, file = tmp_path / "picture.png", tmp_path / "file.dfc"
    Image.fromarray(np.zeros((1024, 1024, 3), np.uint8)).save(picture)

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        program = "import atexit; from diffusion_codec import cli, memory; "
        program += f"atexit.register(lambda: print(memory.peak_memory())); cli.main({list(options)!r})"
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)

    free = run("compress", str(picture), str(file))
    refused = run("compress", str(picture), str(file), "--force", "--max-memory", "300M")
    assert refused.returncode == 1
    (lacking,) = re.findall(r"allow (\d+) MiB more", refused.stderr)
    enough = 300 + int(lacking) + 8
    held = run("compress", str(picture), str(file), "--force", "--max-memory", f"{enough}M")
    assert held.returncode == 0, held.stderr
    peak = int(held.stdout.split()[-1])
    assert peak <= enough * 2**20 < int(free.stdout.split()[-1])
    tally(Row("Limits", "a program keeps to the memory it is allowed", 2, 2, refused=1, accepted=1))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    ],
)
def test_what_libraries_say_of_memory_is_one_error(error: Exception) -> None:
    @reports_memory
    def fails() -> None:
        raise error

    with pytest.raises(OutOfMemoryError, match="scale it down"):
        fails()


def test_memory_that_was_given_back_is_not_held() -> None:
    once = np.ones(2**28, np.uint8)
    held = held_memory()
    assert held > once.nbytes
    del once
    assert held_memory() < held - 2**27
    assert peak_memory() > held - 2**20  # the system counts a few pages late


@pytest.mark.parametrize("said", ["", None])
def test_where_the_system_does_not_say_what_is_held_the_peak_counts(
    said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def status(path: str, encoding: str) -> io.StringIO:
        if said is None:
            raise FileNotFoundError(path)
        return io.StringIO(said)

    monkeypatch.setattr("builtins.open", status)
    held, peak = held_memory(), peak_memory()
    monkeypatch.undo()
    assert 2**20 < held <= peak


def test_other_errors_pass() -> None:
    @reports_memory
    def fails() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        fails()


def test_a_picture_at_the_limit_is_read_and_one_above_refused() -> None:
    assert load_image(_png(41, 23), Limits(max_pixels=41 * 23)).pixels.shape == (23, 41, 3)
    with pytest.raises(LimitExceededError):
        load_image(_png(41, 23), Limits(max_pixels=41 * 23 - 1))


def _png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()
