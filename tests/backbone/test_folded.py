"""The folded decoder is the decoder; what `auto` changes is small, and never a symbol."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from diffusion_codec.backbone import Backbone, RunOptions, model
from diffusion_codec.backbone.folded import FoldedDecoder, can_fold, fold
from diffusion_codec.backbone.options import AUTO_TOLERANCE
from diffusion_codec.bench import photograph
from diffusion_codec.codec import Codec
from tests.tiny import tiny_autoencoder, write_tiny_backbone

AUTO = RunOptions("auto")


def latent(height: int, width: int) -> Tensor:
    return torch.randn(2, 4, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (6, 5)])
@torch.inference_mode()
def test_every_pixel_is_the_decoders(height: int, width: int) -> None:
    vae = tiny_autoencoder().eval()
    for parameter in vae.decoder.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    y = latent(height, width)
    expected = vae.decode(y).sample
    torch.testing.assert_close(FoldedDecoder(vae.decoder)(y), expected, rtol=1e-5, atol=1e-5)


def test_without_its_ring_only_the_border_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring is computed apart for a reason: folded there, too, the padding would be another."""
    monkeypatch.setattr(FoldedDecoder, "_ring", lambda self, hidden, x: None)
    vae, y = tiny_autoencoder().eval(), latent(4, 4)
    with torch.inference_mode():
        apart = (FoldedDecoder(vae.decoder)(y) - vae.decode(y).sample).abs()
    assert float(apart[..., 1:-1, 1:-1].max()) < 1e-5
    assert float(apart.max()) > 1e-4


def test_a_decoder_with_blocks_at_full_resolution_stays_as_it_is() -> None:
    blocks = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(0, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    )
    assert can_fold(tiny_autoencoder())
    assert not can_fold(blocks)
    assert not can_fold(torch.nn.Identity())
    assert fold(torch.randn(8, 6, 3, 3), torch.randn(3, 8, 3, 3)).shape == (12, 6, 3, 3)


def test_gradients_pass_through() -> None:
    vae = tiny_autoencoder().eval().requires_grad_(False)
    gradients = []
    for decode in (FoldedDecoder(vae.decoder), lambda y: vae.decode(y).sample):
        y = latent(3, 4).requires_grad_()
        decode(y).square().mean().backward()
        assert y.grad is not None
        gradients.append(y.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_loading_folds_and_keeps_the_weights(tmp_path: Path) -> None:
    folder = write_tiny_backbone(tmp_path / "tiny")
    loaded = Backbone.from_pretrained(folder)
    plain = AutoencoderTiny.from_pretrained(folder / "vae")
    assert isinstance(loaded.folded, FoldedDecoder)
    assert loaded.vae.state_dict().keys() == plain.state_dict().keys()
    assert not any("folded" in name for name in loaded.state_dict())
    y = latent(5, 6)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.decode(y), plain.decode(y).sample, rtol=1e-5, atol=1e-5)
    assert Backbone.from_pretrained(folder, run=RunOptions(compiled=True)).folded is None


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_bfloat16_for_the_decoder_alone_and_only_where_it_is_native(
    native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "multiplies_bfloat16", lambda device: native)
    backbone = Backbone.from_pretrained(write_tiny_backbone(tmp_path / "tiny"), run=AUTO)
    formats = [{p.dtype for p in part.parameters()} for part in (backbone.vae.encoder, backbone.unet)]
    assert formats == [{torch.float32}, {torch.float32}]
    expected = torch.bfloat16 if native else torch.float32
    assert {p.dtype for p in backbone.vae.decoder.parameters()} == {expected}
    assert backbone.decode(latent(2, 2)).dtype == torch.float32


def test_auto_writes_the_same_file_and_nearly_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded model on a photograph: the tolerance that the option states."""
    monkeypatch.setattr(model, "multiplies_bfloat16", lambda device: True)
    exact, auto = Codec.from_pretrained(), Codec.from_pretrained(run=AUTO)
    pixels = photograph(192, 128)
    files = [codec.compress(pixels) for codec in (exact, auto)]
    assert files[0].data == files[1].data
    pictures = [codec.decompress(files[0].data, steps=1) for codec in (exact, auto)]
    assert pictures[0].symbols_sha256 == pictures[1].symbols_sha256
    apart = pictures[0].pixels.astype(float) - pictures[1].pixels
    rms = float(np.sqrt((apart**2).mean()))
    assert 0 < rms < AUTO_TOLERANCE


def test_in_slices_a_batch_is_the_same(tmp_path: Path) -> None:
    folder = write_tiny_backbone(tmp_path / "tiny")
    whole, sliced = (
        Backbone.from_pretrained(folder, run=RunOptions(low_memory=low)) for low in (False, True)
    )
    y = latent(3, 3)
    with torch.inference_mode():
        torch.testing.assert_close(whole.decode(y), sliced.decode(y), rtol=1e-5, atol=1e-5)
