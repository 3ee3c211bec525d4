import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_codec import bitstream, codec_weights
from diffusion_codec.codec import Codec, lambda_of
from diffusion_codec.errors import BadInputError, MissingDataError
from tests.tiny import tiny_backbone, tiny_codec


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return tiny_codec(tmp_path_factory.mktemp("codec"))


def picture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 65), (64, 40)])
def test_there_and_back(codec: Codec, size: tuple[int, int]) -> None:
    compressed = codec.compress(picture(*size), quality=70)
    decompressed = codec.decompress(compressed.data)
    assert decompressed.pixels.shape == (*size, 3)
    assert decompressed.pixels.dtype == np.uint8
    assert decompressed.symbols_sha256 == compressed.symbols_sha256
    assert not decompressed.grayscale


def test_the_same_input_gives_the_same_bytes(codec: Codec) -> None:
    assert codec.compress(picture(40, 48)).data == codec.compress(picture(40, 48)).data


def test_lambda_spans_its_range() -> None:
    assert lambda_of(0) == 1
    assert lambda_of(100) == 2**18


def test_higher_quality_makes_larger_files(codec: Codec) -> None:
    sizes = [len(codec.compress(picture(64, 64), quality=q).data) for q in (0, 25, 50, 75, 100)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]


def test_size_limit_is_kept_and_used_as_well_as_any_quality_can(codec: Codec) -> None:
    pixels = picture(64, 64)
    sizes = [len(codec.compress(pixels, quality=q).data) for q in np.linspace(0, 100, 81)]
    for limit in np.linspace(sizes[0], sizes[-1], 5).astype(int):
        size = len(codec.compress_to_size(pixels, int(limit)).data)
        assert 0.94 * max(s for s in sizes if s <= limit) <= size <= limit


def test_files_of_any_size_start_from_one_analysis(codec: Codec) -> None:
    pixels = picture(45, 64)
    analysis = codec.analyse(pixels)
    assert codec.compress(analysis, 60).data == codec.compress(pixels, 60).data
    assert codec.compress_to_size(analysis, 400).data == codec.compress_to_size(pixels, 400).data
    assert (codec.autoencode(analysis) == codec.autoencode(pixels)).all()
    assert codec.compress(analysis).seconds["encode"] == analysis.seconds["encode"]


def test_unreachable_size_says_what_is_reachable(codec: Codec) -> None:
    smallest = len(codec.compress(picture(64, 64), quality=0).data)
    with pytest.raises(BadInputError, match=f"needs at least {smallest} bytes"):
        codec.compress_to_size(picture(64, 64), 20)


@pytest.mark.parametrize("quality", [-1, 101, float("nan")])
def test_quality_outside_its_range(codec: Codec, quality: float) -> None:
    with pytest.raises(BadInputError, match="outside 0 to 100"):
        codec.compress(picture(8, 8), quality)


@pytest.mark.parametrize(
    ("pixels", "got"),
    [
        (np.zeros((8, 8, 3), np.float32), r"float32 \(8, 8, 3\)"),
        (np.zeros((8, 8, 3), bool), "bool"),
        (np.zeros((8, 8, 3), np.uint16), "uint16"),
        (np.zeros((8, 8), np.uint8), r"uint8 \(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"uint8 \(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), r"uint8 \(0, 8, 3\)"),
        (torch.zeros((8, 8, 3)), "torch.float32"),
        (Image.new("RGB", (8, 8)), "Image"),
    ],
)
def test_what_are_no_pixels_is_said(codec: Codec, pixels: Any, got: str) -> None:
    message = rf"expected uint8 pixels of shape \(H, W, 3\), got {got}"
    with pytest.raises(BadInputError, match=message):
        codec.compress(pixels)
    with pytest.raises(BadInputError, match=message):
        codec.compress_to_size(pixels, 1000)
    with pytest.raises(BadInputError, match=message):
        codec.autoencode(pixels)


def test_grey_stays_grey(codec: Codec) -> None:
    data = codec.compress(picture(16, 16), grayscale=True).data
    decoded = codec.decompress(data)
    assert decoded.grayscale
    assert (decoded.pixels == decoded.pixels[..., :1]).all()


def test_a_file_of_other_weights_is_refused(codec: Codec, tmp_path: Path) -> None:
    data = tiny_codec(tmp_path, seed=1).compress(picture(16, 16)).data
    with pytest.raises(BadInputError, match="made with codec weights"):
        codec.decompress(data)


def test_another_denoiser_decodes_the_same_symbols(codec: Codec) -> None:
    other = Codec(tiny_backbone(seed=5), codec.weights)
    compressed = codec.compress(picture(32, 32))
    decoded = other.decompress(compressed.data)
    assert decoded.symbols_sha256 == compressed.symbols_sha256
    assert not np.array_equal(decoded.pixels, codec.decompress(compressed.data).pixels)


def test_another_latent_space_is_refused(codec: Codec) -> None:
    backbone = tiny_backbone()
    backbone.latent_space = "elsewhere"
    with pytest.raises(BadInputError, match="latent space"):
        Codec(backbone, codec.weights)


def test_header_carries_what_p_phi_said(codec: Codec) -> None:
    header = bitstream.read(codec.compress(picture(24, 56), quality=30).data).header
    assert (header.width, header.height) == (56, 24)
    assert header.weights_fingerprint == codec.weights.fingerprint
    assert 0 < header.timestep < 1000


def test_garbage_streams_decode_to_an_error_or_to_symbols_never_to_a_crash(codec: Codec) -> None:
    file = bitstream.read(codec.compress(picture(64, 64)).data)
    rng = np.random.default_rng(0)
    for length in (0, 1, 3, 4, 8, 100):
        stream = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
        data = bitstream.write(bitstream.DfcFile(file.header, b"", stream))
        try:
            outcome = str(codec.decompress(data, steps=0).pixels.shape)
        except BadInputError as error:
            outcome = str(error)
        assert outcome == "(64, 64, 3)" or "stream" in outcome


def test_compress_leaves_the_generator_of_its_caller_alone(codec: Codec) -> None:
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    codec.decompress(codec.compress(picture(8, 8)).data)
    assert torch.rand(1) == expected


@pytest.mark.parametrize("seed", [-1, 65536])
def test_a_dither_seed_outside_its_range(codec: Codec, seed: int) -> None:
    with pytest.raises(BadInputError, match=f"dither.seed is {seed}, expected 0 to 65535"):
        codec.compress(picture(8, 8), dither_seed=seed)


def test_no_number_is_no_size(codec: Codec) -> None:
    with pytest.raises(BadInputError, match="nan bytes cannot be reached"):
        codec.compress_to_size(picture(8, 8), float("nan"))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_file_in_any_kind_of_bytes(codec: Codec, kind: Any) -> None:
    data = codec.compress(picture(16, 24)).data
    assert np.array_equal(codec.decompress(kind(data)).pixels, codec.decompress(data).pixels)


def test_a_name_is_no_file(codec: Codec) -> None:
    with pytest.raises(BadInputError, match=r"expected the bytes of a \.dfc file, got str"):
        codec.decompress("a.dfc")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_type_of_the_program_around_does_not_matter(codec: Codec, dtype: torch.dtype) -> None:
    expected = codec.compress(picture(64, 40), dither_seed=3)
    pixels = codec.decompress(expected.data).pixels
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        assert codec.compress(picture(64, 40), dither_seed=3).data == expected.data
        assert np.array_equal(codec.decompress(expected.data).pixels, pixels)
        embedded = Codec.from_pretrained()
        made = embedded.compress(picture(64, 40))
    finally:
        torch.set_default_dtype(before)
    assert Codec.from_pretrained().compress(picture(64, 40)).data == made.data
    assert Codec.from_pretrained().decompress(made.data).symbols_sha256 == made.symbols_sha256


def test_dither_is_shared_by_both_sides(codec: Codec) -> None:
    compressed = codec.compress(picture(64, 64), dither_seed=9)
    assert bitstream.read(compressed.data).header.dither_seed == 9
    decoded = codec.decompress(compressed.data, steps=0)
    assert decoded.symbols_sha256 == compressed.symbols_sha256
    # without its own dither the latent would be half a step off: another seed in the header shows it
    file = bitstream.read(compressed.data)
    other = bitstream.DfcFile(dataclasses.replace(file.header, dither_seed=10), file.hyper, file.latent)
    assert not np.array_equal(codec.decompress(bitstream.write(other), steps=0).pixels, decoded.pixels)


def test_a_file_of_other_embedded_weights_decodes(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tiny_codec(tmp_path, seed=1)
    compressed = other.compress(picture(16, 16))
    monkeypatch.setattr(codec_weights, "_embedded", lambda: {"other": tmp_path / "codec.safetensors"})
    assert codec.decompress(compressed.data).symbols_sha256 == compressed.symbols_sha256


def test_embedded_codec_holds_its_size_limit_closely() -> None:
    real = Codec.from_pretrained()
    rng = np.random.default_rng(3)
    smooth = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    for limit in (1200, 1800, 2500):
        size = len(real.compress_to_size(smooth, limit).data)
        assert 0.97 * limit <= size <= limit


def test_unknown_embedded_weights_list_the_known() -> None:
    with pytest.raises(MissingDataError, match="independent, paper-2024, paper-2025"):
        Codec.from_pretrained(weights="nonsense")


def test_a_file_called_like_embedded_weights_needs_a_separator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("default", "paper-2025", "mine"):
        Path(name).touch()
    for name in ("default", "paper-2025"):
        assert codec_weights.find(name) == codec_weights.embedded_weights("paper-2025")
        assert codec_weights.find(f"./{name}") == codec_weights.find(Path(name)) == Path(name)
    assert codec_weights.find("mine") == Path("mine")
    (tmp_path / "mini").mkdir()
    assert Codec.from_pretrained().backbone.name == "mini"
