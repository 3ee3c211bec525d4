import numpy as np

from diffusion_codec import baselines
from diffusion_codec.audit.reduced import ReducedCodec, resized


def picture() -> np.ndarray:
    y, x = np.mgrid[:96, :128]
    waves = 120 + 60 * np.sin(x / 9.0) * np.cos(y / 7.0)
    return np.repeat(waves[..., None], 3, -1).astype(np.uint8)


def test_a_rate_within_reach_is_coded_at_full_size() -> None:
    pixels = picture()
    coded = ReducedCodec(baselines.get("jpeg")).run(pixels, 2.0)
    whole = baselines.get("jpeg").encode_at(pixels, 2.0)
    assert coded.data == whole.data
    assert np.array_equal(coded.decoded, baselines.get("jpeg").decode(whole.data))


def test_below_its_smallest_file_a_codec_codes_a_smaller_picture() -> None:
    pixels = picture()
    smallest = min(8 * len(baselines.get("webp").encode(pixels, q)) / (96 * 128) for q in range(3))
    rate = smallest / 2
    coded = ReducedCodec(baselines.get("webp")).run(pixels, rate)
    assert coded.data is not None
    assert 8 * len(coded.data) / (96 * 128) <= rate
    assert coded.decoded.shape == pixels.shape
    assert baselines.get("webp").decode(coded.data).shape[0] < 96
    error = np.abs(coded.decoded.astype(float) - pixels).mean()
    assert error < 30


def test_a_rate_nobody_reaches_gives_the_smallest_file() -> None:
    coded = ReducedCodec(baselines.get("jpeg")).run(picture(), 0.001)
    assert coded.data is not None
    assert baselines.get("jpeg").decode(coded.data).shape == (12, 16, 3)


def test_the_same_size_is_the_same_array() -> None:
    pixels = picture()
    assert resized(pixels, 128, 96) is pixels
    assert resized(pixels, 64, 48).shape == (48, 64, 3)
