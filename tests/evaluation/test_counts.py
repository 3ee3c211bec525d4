"""What the codec costs in numbers that no machine changes: operations, passes of networks, bytes held at once.

The embedded model's counts are those of its design, written out. Only shapes are computed, no data.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion_codec import codec, codec_weights
from diffusion_codec.bench.shared import photograph
from diffusion_codec.codec import Codec
from diffusion_codec.entropy.model import CHANNELS
from diffusion_codec.entropy.range_coder import Decoder, Encoder
from diffusion_codec.evaluation import speed
from diffusion_codec.evaluation.complexity import operations, peak_bytes
from diffusion_codec.tiling import tiled
from tests.tiny import tiny_weights_file, write_tiny_backbone

WIDTH, HEIGHT = 768, 512
PIXELS = WIDTH * HEIGHT
MIB = 2**20
CONVOLUTION = 2 * 64 * 64 * 9  # operations a position of 3 x 3, 64 to 64 channels

# E by resolution: 1, 1/4, 1/16, 1/64 of the pixels. Three blocks of three convolutions at all but the first.
E = 2 * 3 * 64 * 9 + (10 * CONVOLUTION) * (1 / 4 + 1 / 16 + 1 / 64) + 2 * 64 * 4 * 9 / 64
# D the same way back, with one block more at full resolution
D = 2 * 4 * 64 * 9 / 64 + 9 * CONVOLUTION / 64 + 10 * CONVOLUTION * (1 / 16 + 1 / 4)
D += 4 * CONVOLUTION + 2 * 64 * 3 * 9


@pytest.fixture(scope="module")
def mini() -> dict[str, Callable[[], object]]:
    return speed.networks(WIDTH, HEIGHT)


def test_operations_of_the_embedded_model(mini: dict[str, Callable[[], object]]) -> None:
    assert operations(mini["E"]) == E * PIXELS == 96_514_080_768
    assert operations(mini["D"]) == D * PIXELS == 212_025_212_928
    assert operations(mini["one denoising step"]) == 13_289_308_160


def test_bytes_held_at_once(mini: dict[str, Callable[[], object]]) -> None:
    """The autoencoder holds one tensor of 64 channels at full resolution, or three."""
    full = 64 * PIXELS * 4
    assert peak_bytes(mini["D"]) < 3.1 * full < 300 * MIB
    assert peak_bytes(mini["E"]) < 1.35 * full < 130 * MIB
    assert peak_bytes(mini["one denoising step"]) < 20 * MIB


def test_the_counter_of_bytes_knows_what_is_held() -> None:
    def run() -> None:
        first = torch.zeros(1000)
        second = first + 1
        view = second[:10].reshape(2, 5)
        del first, second
        torch.zeros(100)
        del view
        torch.zeros(1500)

    assert peak_bytes(run) == 8000
    outside = torch.zeros(10**6)
    assert peak_bytes(lambda: outside.mul_(2)) == 0
    assert peak_bytes(lambda: outside + 1) == 4 * 10**6


def test_blending_tiles_holds_what_is_finished_and_one_row_of_tiles() -> None:
    x = torch.zeros(1, 3, 1024, 1024)
    row = x.nbytes // 8 * 4 / 3  # the sums of a row of tiles and their weights

    def held(finish: Callable[[Tensor], Tensor] | None) -> int:
        return peak_bytes(
            lambda: tiled(lambda part: part * 1, x, tile=128, overlap=16, scale=1, finish=finish)
        )

    assert x.nbytes + row < held(None) < x.nbytes + 1.7 * row
    assert x.nbytes / 4 + row < held(lambda part: part.to(torch.uint8)) < x.nbytes / 4 + 2 * row


def test_pixels_are_never_held_as_numbers_of_four_bytes_for_the_whole_picture() -> None:
    pixels = photograph(320, 240)
    assert peak_bytes(lambda: codec._from_pixels(pixels)) <= pixels.size
    levels = codec._from_pixels(pixels)
    assert np.array_equal(codec._to_pixels(levels, 240, 320), pixels)
    assert peak_bytes(lambda: codec._to_pixels(levels, 240, 320)) <= pixels.size


@contextmanager
def passes(of: Codec, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each network runs, and the range coder is called."""
    backbone = of.backbone
    networks: dict[str, nn.Module] = {
        "E": backbone.vae.encoder.layers[0],
        "D": backbone.vae.decoder.layers[0],
        "denoiser": backbone.unet,
        "P_phi": of.p_phi,
    }
    for index, network in enumerate(of.weights.latent_coder.model.passes):
        networks[f"pass {index}"] = network
    counts: Counter[str] = Counter()
    handles = []
    for name, network in networks.items():

        def count(module: nn.Module, inputs: object, output: Tensor, name: str = name) -> None:
            counts[name] += 1

        handles.append(network.register_forward_hook(count))
    for coder, method in ((Encoder, "put"), (Decoder, "get")):
        original = getattr(coder, method)

        def counted(*arguments: object, original: Callable[..., object] = original) -> object:
            counts["range coder"] += 1
            return original(*arguments)

        monkeypatch.setattr(coder, method, counted)
    yield counts
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(("context", "a_channel"), [("none", 1), ("checkerboard", 2), ("lattice", 4)])
def test_passes_of_compress_and_decompress(
    context: str, a_channel: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tiny_weights_file(tmp_path / "codec.safetensors", context=context)
    tiny = Codec.from_pretrained(write_tiny_backbone(tmp_path / "tiny"), weights)
    pixels = photograph(48, 32)
    entropy = {f"pass {index}": 1 for index in range(4 * a_channel)}
    entropy["range coder"] = 4 * a_channel
    with passes(tiny, monkeypatch) as counts:
        made = tiny.compress(pixels)
        assert counts == {"E": 1, "P_phi": 1, **entropy}
        counts.clear()
        tiny.decompress(made.data, steps=3)
        assert counts == {"denoiser": 3, "D": 1, **entropy}
        counts.clear()
        tiny.compress_to_size(pixels, len(made.data))
        assert counts["E"] == 1
        assert counts["P_phi"] == counts["pass 0"] <= 12


def test_the_shipped_codecs_code_a_channel_in_as_many_passes_as_the_book_says() -> None:
    for name, passes in (("default", 4), ("independent", 4), ("paper-2024", 2)):
        weights = codec_weights.load(codec_weights.embedded_weights(name))
        assert len(weights.latent_coder.model.passes) == passes * CHANNELS
