"""What the precision `auto` changes is small, and never a symbol."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_codec.backbone import Backbone, RunOptions, model
from diffusion_codec.backbone.options import AUTO_TOLERANCE
from diffusion_codec.bench.shared import photograph
from diffusion_codec.codec import Codec
from tests.tiny import write_tiny_backbone

AUTO = RunOptions("auto")


def latent(height: int, width: int) -> Tensor:
    return torch.randn(2, 4, height, width, generator=torch.Generator().manual_seed(1))


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
