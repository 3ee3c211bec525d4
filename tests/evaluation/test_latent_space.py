from pathlib import Path

import pandas as pd
import pytest
import torch

from diffusion_codec import datasets
from diffusion_codec.codec import Codec
from diffusion_codec.evaluation import latent_space
from diffusion_codec.fetch import repository_root
from tests.tiny import tiny_autoencoder, tiny_codec


def test_each_autoencoder_reads_what_the_other_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent_space, "MEASURES", ("psnr",))
    monkeypatch.setattr(latent_space, "RATE", 20.0)
    codec, teacher = tiny_codec(tmp_path), tiny_autoencoder(seed=1)
    table = latent_space.compare(codec, teacher, datasets.subset(datasets.load("sample"), 1))
    table = table.set_index(["latent", "decoder"])["psnr"]
    assert set(table.index.unique("latent")) == {"mini", "TAESD", "mini, file of 20"}
    assert table["mini", "mini"] != table["mini", "TAESD"]
    assert table["TAESD", "mini"] != table["mini", "mini"]
    alike = latent_space.compare(codec, codec.backbone.vae, datasets.subset(datasets.load("sample"), 1))
    assert alike.groupby("latent")["psnr"].nunique().eq(1).all()


@torch.inference_mode()
def test_a_file_is_read_by_the_other_decoder_after_the_same_denoising(tmp_path: Path) -> None:
    codec, teacher = tiny_codec(tmp_path), tiny_autoencoder(seed=1)
    pixels = datasets.load("sample", 1)[0].pixels()[:64, :64]
    data = codec.compress(pixels, 50).data
    other = Codec(latent_space.ReadBy(codec.backbone, teacher), codec.weights)  # type: ignore[arg-type]
    ours, theirs = codec.decompress(data), other.decompress(data)
    assert ours.symbols_sha256 == theirs.symbols_sha256
    assert (ours.pixels != theirs.pixels).any()


def test_the_stored_table_says_what_the_book_says() -> None:
    table = pd.read_csv(repository_root() / "data/results/latent_space.csv")
    psnr = table.set_index(["latent", "decoder"])["psnr"]
    assert psnr.loc[["mini", "TAESD"]].groupby("latent").agg(lambda v: v.max() - v.min()).max() < 1.5
    assert 0 < psnr["mini, file of 0.1", "mini"] - psnr["mini, file of 0.1", "TAESD"] < 0.5
