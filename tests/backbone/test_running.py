"""Stable Diffusion's classes through the real code path: DDIM, precisions, tiles, offload, other backbones' files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn

from diffusion_codec import codec_weights
from diffusion_codec.backbone import Backbone, RunOptions
from diffusion_codec.backbone.options import (
    SMALLEST_TILE,
    STABLE_DIFFUSION,
    Tiles,
    checked_device,
    run_options,
)
from diffusion_codec.backbone.random_model import SHAPES
from diffusion_codec.codec import Codec
from diffusion_codec.errors import BadInputError, LimitExceededError
from diffusion_codec.memory import BYTES_PER_PIXEL, peak_memory
from tests.test_backbone import ddim_of_diffusers
from tests.tiny import tiny_backbone, tiny_weights_file

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


@pytest.fixture(params=[1, 2])
def folder(request: pytest.FixtureRequest, tiny_models: dict[int, Path]) -> Path:
    return tiny_models[request.param]


@pytest.fixture
def backbone(folder: Path) -> Backbone:
    return Backbone.from_pretrained(folder)


@pytest.mark.parametrize(("start", "steps"), [(100, 1), (400, 2), (200, 4), (500, 5)])
def test_ddim_is_that_of_diffusers(start: int, steps: int, folder: Path, backbone: Backbone) -> None:
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler", set_alpha_to_one=True, steps_offset=0)
    y_hat = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = ddim_of_diffusers(backbone, scheduler, y_hat, start, steps)
        ours = backbone.denoise(y_hat, torch.tensor([float(start)]), steps)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_a_photograph_there_and_back(folder: Path, tmp_path: Path) -> None:
    codec = Codec.from_pretrained(folder, tiny_weights_file(tmp_path / "codec.safetensors"))
    made = codec.compress(PIXELS)
    decoded = codec.decompress(made.data)
    assert decoded.pixels.shape == PIXELS.shape
    assert decoded.symbols_sha256 == made.symbols_sha256


def test_any_backbone_of_the_latent_space_decodes_the_file(
    tiny_models: dict[int, Path], tmp_path: Path
) -> None:
    weights = codec_weights.load(tiny_weights_file(tmp_path / "codec.safetensors"))
    backbones = [tiny_backbone(), *(Backbone.from_pretrained(tiny_models[g]) for g in (1, 2))]
    codecs = [Codec(backbone, weights) for backbone in backbones]
    for maker in codecs:
        made = maker.compress(PIXELS)
        decoded = [codec.decompress(made.data) for codec in codecs]
        assert {d.symbols_sha256 for d in decoded} == {made.symbols_sha256}
        pictures = [d.pixels for d in decoded]
        assert not any(np.array_equal(pictures[a], pictures[b]) for a, b in ((0, 1), (1, 2), (0, 2)))


def test_other_codec_weights_are_refused_by_their_fingerprint(
    tiny_models: dict[int, Path], tmp_path: Path
) -> None:
    maker, reader = (
        Codec.from_pretrained(tiny_models[1], tiny_weights_file(tmp_path / f"{seed}.safetensors", seed))
        for seed in (0, 1)
    )
    with pytest.raises(BadInputError, match=maker.weights.fingerprint.hex()):
        reader.decompress(maker.compress(PIXELS).data)


def test_another_latent_space_is_refused(tiny_models: dict[int, Path], tmp_path: Path) -> None:
    backbone = Backbone.from_pretrained(tiny_models[1])
    backbone.latent_space = "stable-diffusion-xl"
    with pytest.raises(BadInputError, match=r"'stable-diffusion-1'; .* speaks 'stable-diffusion-xl'"):
        Codec(backbone, codec_weights.load(tiny_weights_file(tmp_path / "codec.safetensors")))


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.1), ("float16", 0.02)])
def test_half_precision_stays_near_float32(precision: str, tolerance: float, folder: Path) -> None:
    full = Backbone.from_pretrained(folder)
    half = Backbone.from_pretrained(folder, run=run_options(precision))
    assert {p.dtype for p in half.parameters()} == {getattr(torch, precision)}
    y, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([200.0])
    with torch.inference_mode():
        expected, got = full.denoise(y, t, 2), half.denoise(y, t, 2)
        pictures = full.decode(expected), half.decode(expected)
        latents = full.encode(pictures[0].clamp(-1, 1)), half.encode(pictures[0].clamp(-1, 1))
    for a, b in ((expected, got), pictures, latents):
        assert b.dtype == torch.float32
        assert float((a - b).abs().mean() / a.abs().mean()) < tolerance


def test_symbols_do_not_depend_on_the_decoders_precision(folder: Path, tmp_path: Path) -> None:
    weights = tiny_weights_file(tmp_path / "codec.safetensors")
    made = Codec.from_pretrained(folder, weights).compress(PIXELS)
    half = Codec.from_pretrained(folder, weights, run=RunOptions("bfloat16", low_memory=True))
    assert half.decompress(made.data).symbols_sha256 == made.symbols_sha256


def test_slices_and_smaller_tiles_change_nothing_in_a_picture_of_one_tile(folder: Path) -> None:
    full, small = (
        Backbone.from_pretrained(folder),
        Backbone.from_pretrained(folder, run=RunOptions(low_memory=True)),
    )
    assert small.tiles == Tiles(384, 48, 64, 8, 4096)
    y, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([200.0, 50.0])
    with torch.inference_mode():
        torch.testing.assert_close(small.denoise(y, t, 1), full.denoise(y, t, 1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(small.decode(y), full.decode(y), rtol=1e-4, atol=1e-5)


def test_low_memory_slices_attention_and_batches(folder: Path) -> None:
    full, small = (Backbone.from_pretrained(folder, run=RunOptions(low_memory=low)) for low in (False, True))
    kinds = [{type(p).__name__ for p in b.unet.attn_processors.values()} for b in (full, small)]
    assert (kinds[0] == kinds[1], kinds[1]) == (False, {"SlicedAttnProcessor"})
    assert (full.vae.use_slicing, small.vae.use_slicing) == (False, True)


def test_weights_lie_channels_last(backbone: Backbone) -> None:
    filters = [p for p in backbone.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[-1] > 1]
    assert len(filters) > 50
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in filters)


def test_tiles_bound_what_the_networks_see(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone.tiles = Tiles(64, 16, 8, 4, 1)
    seen: dict[str, list[int]] = {"unet": [], "encoder": [], "decoder": []}
    for name, network in (
        ("unet", backbone.unet),
        ("encoder", backbone.vae.encoder),
        ("decoder", backbone.vae.decoder),
    ):
        network.register_forward_pre_hook(
            lambda module, args, name=name: seen[name].extend(args[0].shape[-2:])
        )
    with torch.inference_mode():
        y = backbone.encode(torch.rand(1, 3, 104, 136) * 2 - 1)
        x = backbone.decode(backbone.denoise(y, torch.tensor([100.0]), 1))
    assert x.shape == (1, 3, 104, 136)
    assert torch.isfinite(x).all()
    assert {name: max(sides) for name, sides in seen.items()} == {"unet": 8, "encoder": 64, "decoder": 8}


def test_the_largest_tile_fits_eight_gigabytes_beside_the_weights() -> None:
    """In float32, reckoned: weights, and a tile at the bytes a pixel that tiles are made by."""
    for shape in ("stable-diffusion-1", "stable-diffusion-2"):
        with torch.device("meta"):
            networks = UNet2DConditionModel(**SHAPES[shape].unet), AutoencoderKL(**SHAPES[shape].vae)
        weights = sum(4 * p.numel() for network in networks for p in network.parameters())
        working = STABLE_DIFFUSION.pixels**2 * STABLE_DIFFUSION.bytes_per_pixel
        assert (round(weights / 1e9, 1), round(working / 1e9, 1)) == (3.8, 2.4)
        assert weights + working < 8e9


def test_memory_that_is_allowed_sets_the_side_of_tiles() -> None:
    full = Tiles(1024, 128, 256, 32, 1000)
    assert full.within(1000 * 1024**2) == full.within(10**12) == full
    assert full.within(1000 * 1024**2 - 1) == Tiles(960, 120, 240, 30, 1000)
    assert full.within(1000 * 384**2) == Tiles(384, 48, 96, 12, 1000)
    with pytest.raises(LimitExceededError, match="allow 1 MiB more"):
        full.within(1000 * 384**2 - 1)
    with pytest.raises(LimitExceededError, match="allow 142 MiB more"):
        full.within(-(10**6))


def test_a_picture_is_reckoned_in_what_is_allowed(folder: Path) -> None:
    run = run_options("float32", max_memory="100G")
    allowed = Backbone.from_pretrained(folder, run=run)
    assert allowed.tiles_for(10**6) == allowed.tiles
    with pytest.raises(LimitExceededError, match="too small for this picture"):
        allowed.tiles_for(100 * 2**30 // 24)
    plain = Backbone.from_pretrained(folder)
    assert plain.tiles_for(10**12) == plain.tiles


def test_memory_that_was_given_back_before_loading_may_be_used(folder: Path) -> None:
    np.ones(2**29, np.uint8)
    allowed = Backbone.from_pretrained(folder, run=RunOptions(max_memory=2**40))
    assert allowed._held < peak_memory() - 2**27


def test_memory_that_is_allowed_is_shared_by_pictures_at_once(folder: Path) -> None:
    allowed = Backbone.from_pretrained(folder, run=run_options("float32", max_memory="100G"))
    allowed._held = 90 * 2**30
    each = STABLE_DIFFUSION.least_memory + BYTES_PER_PIXEL * 1008 * 1000  # whole latent positions
    fit = 10 * 2**30 // each
    assert 4 < fit < 20
    sizes = [(1001, 1000), (640, 480), (0, 0)]
    assert allowed.share(4, sizes) == 4
    assert allowed.tiles_for(10**6) == STABLE_DIFFUSION.within(10 * 2**30 // 4 - BYTES_PER_PIXEL * 10**6)
    assert allowed.share(20, sizes) == fit
    assert allowed.tiles_for(1008 * 1000).pixels >= SMALLEST_TILE
    allowed._held = 100 * 2**30
    assert allowed.share(4, sizes) == 1  # which tiles_for then refuses


def test_with_offload_there_is_one_picture_at_a_time(folder: Path) -> None:
    assert Backbone.from_pretrained(folder, run=RunOptions(offload=True)).share(4, []) == 1
    assert Backbone.from_pretrained(folder).share(4, []) == 4


def test_offload_keeps_one_network_on_the_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, offloaded = (
        Backbone.from_pretrained(folder),
        Backbone.from_pretrained(folder, run=RunOptions(offload=True)),
    )
    moves: list[tuple[str, str]] = []
    move = nn.Module.to

    def spy(module: nn.Module, *args: Any, **keywords: Any) -> nn.Module:
        names = {id(offloaded.unet): "unet", id(offloaded.vae): "vae"}
        moves.append((names[id(module)], str(args[0])))
        return move(module, *args, **keywords)

    y = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([200.0])
    with torch.inference_mode():
        expected = plain.decode(plain.denoise(y, t, 1))
        # a device of another name than the one the networks rest on
        monkeypatch.setattr(Backbone, "device", torch.device("cpu", 0))
        monkeypatch.setattr(nn.Module, "to", spy)
        got = offloaded.decode(offloaded.denoise(y, t, 1))
    assert moves == [("vae", "cpu"), ("unet", "cpu:0"), ("unet", "cpu"), ("vae", "cpu:0")]
    assert torch.equal(got, expected)


def test_compiled_networks_are_the_ones_that_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    Backbone.from_pretrained(folder, run=RunOptions(compiled=True))
    assert compiled == ["Encoder", "Decoder", "UNet2DConditionModel"]


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", "no GPU"),
        ("cuda:7", "no GPU|has . GPUs"),
        ("gpu", "is no device; known: cpu, cuda"),
        ("meta", "cannot compute on it here"),
        ("xla", "cannot compute on it here"),
    ],
)
def test_a_device_that_is_not_there(device: str, message: str, folder: Path) -> None:
    if device == "cuda" and torch.cuda.is_available():
        device, message = "cuda:99", "has . GPUs"
    with pytest.raises(BadInputError, match=message):
        Backbone.from_pretrained(folder, device)
    assert checked_device("cpu") == torch.device("cpu")


def test_an_unknown_precision() -> None:
    with pytest.raises(BadInputError, match="'int8' is unknown; choose auto, float32, bfloat16, float16"):
        run_options("int8")
    with pytest.raises(BadInputError, match="'float64' is unknown"):
        RunOptions("float64")  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="max_memory is '1G', expected bytes"):
        RunOptions(max_memory="1G")  # type: ignore[arg-type]
