import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_codec import bitstream, cli
from diffusion_codec.audit import heat, uncertainty
from diffusion_codec.audit.uncertainty import Spread
from diffusion_codec.codec import Codec, _moved
from diffusion_codec.errors import BadInputError
from diffusion_codec.quantization import affine, alpha_from_index, beta_from_index
from tests.tiny import tiny_codec, tiny_weights_file, write_tiny_backbone


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return tiny_codec(tmp_path_factory.mktemp("codec"))


@pytest.fixture(scope="module")
def data(codec: Codec) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    return codec.compress(pixels, quality=60).data


def test_a_seed_moves_the_latent_within_its_cells_and_nothing_else(codec: Codec, data: bytes) -> None:
    plain, one, again, two = (codec.decompress(data, steps=0, seed=s) for s in (None, 1, 1, 2))
    assert np.array_equal(one.pixels, again.pixels)
    assert not np.array_equal(one.pixels, two.pixels)
    assert not np.array_equal(one.pixels, plain.pixels)
    assert plain.symbols_sha256 == one.symbols_sha256 == two.symbols_sha256


def test_the_file_of_a_moved_latent_is_the_same_file(codec: Codec, data: bytes) -> None:
    file = bitstream.read(data)
    z_hat = codec.symbols(file)
    y_hat, _ = codec._dequantise(z_hat, file.header)
    for seed in (0, 65535):
        moved, _ = codec._dequantise(_moved(z_hat, seed), file.header)
        assert not torch.equal(moved, y_hat)
        alpha, beta = torch.tensor([file.header.alpha]), torch.tensor([file.header.beta])
        z = affine(moved, alpha_from_index(alpha), beta_from_index(beta))
        assert torch.equal(z[0].round().long(), z_hat)


def test_a_draw_does_not_undo_the_dither_of_a_file_with_the_same_seed(codec: Codec) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    dithered = codec.compress(pixels, quality=60, dither_seed=7).data
    file = bitstream.read(dithered)
    z_hat = codec.symbols(file)
    moved, _ = codec._dequantise(_moved(z_hat, 7), file.header)
    lattice, _ = codec._dequantise(z_hat, dataclasses.replace(file.header, dither_seed=None))
    alpha = alpha_from_index(torch.tensor([file.header.alpha]))[..., None, None]
    assert (
        float(((moved - lattice) * alpha).abs().mean()) > 0.2
    )  # steps; 1/3 for two draws, 0 for an undone one
    with pytest.raises(BadInputError, match="seed"):
        codec.decompress(dithered, seed=-1)


def test_the_dial_runs_from_one_step_to_many(codec: Codec, data: bytes) -> None:
    def at(fidelity: float, steps: int | None = None) -> np.ndarray:
        return codec.decompress(data, steps=steps, fidelity=fidelity).pixels

    assert np.array_equal(at(0), codec.decompress(data, steps=1).pixels)
    assert np.array_equal(at(1), codec.decompress(data, steps=10).pixels)
    assert np.array_equal(at(1, 4), codec.decompress(data, steps=4).pixels)
    assert codec.decompress(data, fidelity=0.5).symbols_sha256 == codec.decompress(data).symbols_sha256


@pytest.mark.parametrize(("fidelity", "steps"), [(-0.1, None), (1.1, None), (float("nan"), None), (0.5, 1)])
def test_a_dial_beyond_its_ends_is_an_error(
    codec: Codec, data: bytes, fidelity: float, steps: int | None
) -> None:
    with pytest.raises(BadInputError, match="fidelity"):
        codec.decompress(data, steps=steps, fidelity=fidelity)


def test_spread_is_the_deviation_of_the_draws(codec: Codec, data: bytes) -> None:
    found = uncertainty.spread(codec, data, draws=3)
    draws = np.stack([codec.decompress(data, seed=s).pixels.astype(float) for s in range(3)])
    assert np.allclose(found.spread, draws.std(0, ddof=1).mean(-1), atol=1e-3)
    assert np.array_equal(found.decoded, codec.decompress(data).pixels)
    assert found.draws == 3
    with pytest.raises(BadInputError, match="2 draws"):
        uncertainty.spread(codec, data, draws=1)


def test_blocks_are_means() -> None:
    values = np.arange(16 * 24, dtype=float).reshape(16, 24)
    assert uncertainty.blocks(values).shape == (2, 3)
    assert uncertainty.blocks(values)[1, 2] == values[8:, 16:].mean()
    assert uncertainty.blocks(values[:5, :9]).shape == (1, 1)
    assert uncertainty.blocks(values[:13, :19]).shape == (1, 2)


def test_rank_correlation_sees_order_only_and_nothing_in_a_flat_map() -> None:
    a = np.arange(20.0)
    assert uncertainty.rank_correlation(a, np.exp(a)) == pytest.approx(1)
    assert uncertainty.rank_correlation(a, -a) == pytest.approx(-1)
    assert uncertainty.rank_correlation(a, np.ones(20)) is None


def test_calibration_groups_by_spread() -> None:
    spread = np.array([[4.0, 1.0], [3.0, 2.0]])
    table = uncertainty.calibration(spread, 2 * spread, bins=2)
    assert table["spread"].tolist() == [1.5, 3.5]
    assert table["error"].tolist() == [3, 7]
    assert table["blocks"].tolist() == [2, 2]


def test_the_summary_is_json_and_names_the_worst_place(codec: Codec, data: bytes) -> None:
    decoded = codec.decompress(data).pixels
    spread = np.full(decoded.shape[:2], 1.0, np.float32)
    spread[8:24, 16:32] = 30
    told = uncertainty.summary(Spread(decoded, spread, 4), data, np.zeros_like(decoded))
    assert json.loads(json.dumps(told)) == told
    assert told["evidence"] is False
    assert told["generative"] is True
    assert told["uncertain_share"] == pytest.approx(4 / 35)
    worst = told["most_uncertain"][0]
    assert worst["left"] <= 16
    assert worst["left"] + worst["side"] >= 32
    assert {"rank_correlation", "calibration", "error_mean"} <= set(told)
    assert "error_mean" not in uncertainty.summary(Spread(decoded, spread, 4), data)


def test_pictures_of_two_sizes_are_not_compared() -> None:
    with pytest.raises(BadInputError, match="differ in size"):
        uncertainty.error_map(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8))


def test_the_heat_map_glows_where_the_spread_is() -> None:
    spread = np.zeros((16, 32), np.float32)
    spread[:8, :8] = heat.FULL
    picture = np.array(heat.picture(np.full((16, 32, 3), 100, np.uint8), spread))
    assert picture.shape == (16 + heat.BAR, 32, 3)
    assert picture[4, 4].tolist() == [255, 250, 160]
    assert picture[12, 20].tolist() == [75, 75, 75]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


def test_the_command_writes_map_picture_and_summary(tmp_path: Path, photo: Path) -> None:
    packed = tmp_path / "photo.dfc"
    assert run("compress", photo, packed) == 0
    assert run("audit", packed, "--original", photo, "--draws", 2) == 0
    assert np.load(tmp_path / "photo.spread.npy").shape == (48, 64)
    assert (tmp_path / "photo.spread.png").read_bytes()[:4] == b"\x89PNG"
    told = json.loads((tmp_path / "photo.audit.json").read_text())
    assert (told["width"], told["height"], told["draws"]) == (64, 48, 2)
    assert told["bytes"] == packed.stat().st_size
    assert run("audit", packed) == 1  # results exist
    (tmp_path / "folder").mkdir()
    assert run("audit", packed, "--draws", 2, "--out", tmp_path / "folder") == 0
    assert (tmp_path / "folder" / "photo.audit.json").is_file()
    assert run("audit", photo, "--out", tmp_path / "x") == 1  # no .dfc file
    assert not (tmp_path / "x.audit.json").exists()


def test_the_command_reads_files_of_other_codec_weights_and_keeps_other_suffixes(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--backbone", write_tiny_backbone(tmp_path / "tiny")]
    own = ["--codec-weights", tiny_weights_file(tmp_path / "codec.safetensors")]
    packed = tmp_path / "photo.2024"
    assert run("compress", photo, packed, *model, *own) == 0
    assert run("audit", packed, "--draws", 2, *model) == 1
    assert "(--codec-weights)" in capsys.readouterr().err
    assert run("audit", packed, "--draws", 2, *model, *own) == 0
    assert json.loads((tmp_path / "photo.2024.audit.json").read_text())["width"] == 64
    assert not list(tmp_path.glob("photo.audit.json"))


def test_an_original_of_another_size_is_refused_before_the_model_is_loaded(
    data: bytes,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        Codec, "from_pretrained", lambda *arguments, **named: pytest.fail("a model is loaded")
    )
    packed = tmp_path / "other.dfc"
    packed.write_bytes(data)
    assert run("audit", packed, "--original", photo) == 1
    assert "differ in size: 64 x 48 and 56 x 40 pixels" in capsys.readouterr().err
