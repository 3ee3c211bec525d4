"""The run on chapter 2's page: warm start, fallback data, and weights that read back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_codec import codec_weights
from diffusion_codec.datasets import Septuplets
from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.training import short_run
from tests.tiny import tiny_backbone, tiny_weights_file


def septuplets(root: Path, train: list[str], test: list[str]) -> Path:
    rng = np.random.default_rng(0)
    frame = Image.fromarray(rng.integers(0, 256, (256, 448, 3), dtype=np.uint8))
    for name in (*train, *test):
        folder = root / "sequences" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, 8):
            frame.save(folder / f"im{number}.png", compress_level=1)
    (root / "sep_trainlist.txt").write_text("\n".join(train))
    (root / "sep_testlist.txt").write_text("\n".join(test))
    return root


def point_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Septuplets, "named", classmethod(lambda cls, name, split: cls.open(root, split)))


def test_a_short_run_starts_from_the_weights_and_leaves_readable_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(septuplets(tmp_path / "set", ["00001/0001"], ["00001/0002"]), monkeypatch)
    backbone = tiny_backbone()
    weights = codec_weights.load(tiny_weights_file(tmp_path / "start.safetensors"))
    before = backbone.weights_hash()
    data = short_run.training_data("vimeo90k-septuplet", backbone, 64)
    assert list(data.held_out) == ["00001/0002"]
    assert "1 septuplets of sep_trainlist.txt" in data.statement
    config = short_run.short_config(weights, steps=2, batch_size=1, crop=64, seed=0)
    assert config.entropy_width == 8
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.safetensors").write_bytes(b"of another run")
    path, trained = short_run.short_run(config, backbone, data.crops, weights, tmp_path / "run")
    assert trained.fingerprint == codec_weights.load(path).fingerprint != weights.fingerprint
    assert backbone.weights_hash() == before
    old, new = (w.latent_coder.model.state_dict() for w in (weights, trained))
    moved = max(float((old[k] - new[k]).abs().max()) for k in old)
    assert 0 < moved < 0.01  # two small steps from where it began, not from nothing


def test_sequences_in_both_lists_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(septuplets(tmp_path, ["00001/0001"], ["00001/0001"]), monkeypatch)
    with pytest.raises(BadInputError, match="both lists"):
        short_run.training_data("vimeo90k-septuplet", tiny_backbone(), 64)


def test_without_vimeo_the_samples_are_used_under_their_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(cls: type, name: str, split: str) -> None:
        raise MissingDataError("no mirror")

    monkeypatch.setattr(Septuplets, "named", classmethod(absent))
    data = short_run.training_data("vimeo90k-septuplet-48", tiny_backbone(), 64)
    assert data.name == "sample"
    assert "stand in for Vimeo-90k" in data.statement
    assert "trained on" in data.statement
    x, y = data.crops.draw(1, torch.Generator().manual_seed(0))
    assert x is not None
    assert (x.shape, y.shape) == ((1, 3, 64, 64), (1, 4, 8, 8))


def test_another_data_set_is_refused_with_the_names() -> None:
    with pytest.raises(BadInputError, match="vimeo90k-septuplet-48 or sample"):
        short_run.training_data("kodak", tiny_backbone(), 64)


def test_gradients_are_counted_where_they_are() -> None:
    layer = torch.nn.Linear(2, 1, bias=False)
    assert short_run.gradient_norm(layer) == 0
    layer(torch.tensor([[3.0, 4.0]])).sum().backward()
    assert short_run.gradient_norm(layer) == pytest.approx(5)
