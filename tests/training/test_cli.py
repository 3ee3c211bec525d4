"""The three recipes and the exports by their commands, smoke configurations, start to finish."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from diffusion_codec import codec_weights, fetch
from diffusion_codec.backbone import Backbone
from diffusion_codec.codec import Codec
from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.files import OutputError, TargetExistsError
from diffusion_codec.training.cli import _photos, app
from diffusion_codec.training.latents import load_taesd


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (80, 96 + 8 * index, 3), dtype=np.uint8)).save(
            folder / f"{index}.png"
        )
    return folder


@pytest.fixture(scope="module")
def teacher() -> Path:
    located = fetch.store().find("taesd")
    if located is None:
        pytest.skip("TAESD is neither in the mirror nor in the cache")
    return located.path


def run(*words: object) -> None:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_a_new_backbone_and_its_codec_from_photographs(photos: Path, teacher: Path, tmp_path: Path) -> None:
    common = ("--config", "smoke", "--photos", photos)
    run("autoencoder", *common, "--teacher", teacher, "--out", tmp_path / "autoencoder")
    run("denoiser", *common, "--autoencoder", tmp_path / "autoencoder", "--out", tmp_path / "denoiser")
    runs = ("--autoencoder", tmp_path / "autoencoder", "--denoiser", tmp_path / "denoiser")
    run("export", *runs, "--out", tmp_path / "backbone")
    backbone = Backbone.from_pretrained(tmp_path / "backbone")
    assert backbone.name == "backbone"
    with pytest.raises(TargetExistsError, match="--force"):
        run("export", *runs, "--out", tmp_path / "backbone")
    with pytest.raises(OutputError, match="is a file"):
        run("export", *runs, "--out", photos / "0.png", "--force")
    run("export", *runs, "--out", tmp_path / "backbone", "--name", "renamed", "--force")
    assert Backbone.from_pretrained(tmp_path / "backbone").name == "renamed"
    run("export", *runs, "--out", tmp_path / "backbone", "--force")

    data = ("--septuplets", "vimeo90k-septuplet-48", "--backbone", tmp_path / "backbone")
    run("codec", *common, *data, "--frames", 1, "--out", tmp_path / "codec")
    weights = tmp_path / "weights"
    run("export-codec-weights", "--run", tmp_path / "codec", "--out", weights / "new.safetensors")
    with pytest.raises(TargetExistsError, match="--force"):
        run("export-codec-weights", "--run", tmp_path / "codec", "--out", weights / "new.safetensors")
    (weights / "new.safetensors").write_bytes(b"of another run")
    run("export-codec-weights", "--run", tmp_path / "codec", "--out", weights / "new.safetensors", "--force")
    assert [path.name for path in weights.iterdir()] == ["new.safetensors"]
    codec = Codec(backbone, codec_weights.load(weights / "new.safetensors"))
    pixels = np.asarray(Image.open(photos / "0.png"))
    compressed = codec.compress(pixels)
    assert codec.decompress(compressed.data).symbols_sha256 == compressed.symbols_sha256

    run("codec-card", weights, "--run", f"new={tmp_path / 'codec'}", "--note", "Two steps.")
    told = (weights / "README.md").read_text()
    assert codec.weights.fingerprint.hex() in told
    assert "| `new`, codec | 4 |" in told
    assert f"frozen backbone backbone, fingerprint {backbone.fingerprint}" in told
    assert "photographs of the folder 'photos" in told
    with pytest.raises(BadInputError, match="expected WEIGHTS=FOLDER"):
        run("codec-card", weights, "--run", "new")
    with pytest.raises(BadInputError, match="runs were named for old"):
        run("codec-card", weights, "--run", f"old={tmp_path / 'codec'}")
    card = ("--dataset", "sample", "--limit", 1)
    run("card", tmp_path / "backbone", "--hardware", "this machine", *card)
    told = (tmp_path / "backbone" / "README.md").read_text()
    assert "## Measured on sample[:1] (1 images)" in told
    assert "photographs of the folder 'photos" in told
    assert "1,508" not in told


def test_weights_of_a_latent_space_of_one_s_own_serve_it_alone(
    photos: Path, teacher: Path, tmp_path: Path
) -> None:
    common = ("--config", "smoke", "--photos", photos)
    run("autoencoder", *common, "--teacher", teacher, "--out", tmp_path / "autoencoder")
    run("denoiser", *common, "--teacher", teacher, "--out", tmp_path / "denoiser")
    runs = ("--autoencoder", tmp_path / "autoencoder", "--denoiser", tmp_path / "denoiser")
    run("export", *runs, "--out", tmp_path / "mine", "--latent-space", "mine-1")
    run("codec", *common, "--backbone", tmp_path / "mine", "--out", tmp_path / "codec")
    with pytest.raises(BadInputError, match="backbone: mine"):
        run("codec", *common, "--out", tmp_path / "codec")
    run("export-codec-weights", "--run", tmp_path / "codec", "--out", tmp_path / "w.safetensors")
    weights = codec_weights.load(tmp_path / "w.safetensors")
    Codec(Backbone.from_pretrained(tmp_path / "mine"), weights)
    with pytest.raises(BadInputError, match="mine-1"):
        Codec(Backbone.from_pretrained("mini"), weights)


def test_an_autoencoder_of_another_shape_is_no_start(photos: Path, teacher: Path, tmp_path: Path) -> None:
    common = ("--photos", photos, "--teacher", teacher)
    run("autoencoder", "--config", "smoke", *common, "--out", tmp_path / "small")
    smoke = resources.files("diffusion_codec.training") / "configs" / "autoencoder-smoke.yaml"
    (tmp_path / "deep.yaml").write_text(f"{smoke.read_text()}\ndecoder_blocks: [8, 6, 3, 1]\n")
    deep = ("--config", tmp_path / "deep.yaml", *common, "--start-from", tmp_path / "small")
    with pytest.raises(
        BadInputError, match=r"decoder_blocks \(3, 3, 3, 1\), this configuration \(8, 6, 3, 1\)"
    ):
        run("autoencoder", *deep, "--out", tmp_path / "deep")
    assert not (tmp_path / "deep").exists()


def test_what_is_no_photograph_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    (folder / "odd.jpg").mkdir(parents=True)
    (folder / "._a.png").write_bytes(b"of another system")
    (folder / "film.mp4").write_bytes(b"a film")
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.tif")
    Image.fromarray(pixels[:40, :40]).save(folder / "small.png")
    assert len(_photos(folder, None)) == 1
    assert "1 photographs of the 2 in" in capsys.readouterr().err


def test_a_run_of_another_recipe_is_named(photos: Path, tmp_path: Path) -> None:
    run("codec", "--config", "smoke", "--photos", photos, "--frames", 0, "--out", tmp_path / "codec")
    with pytest.raises(BadInputError, match="codec is no run of the autoencoder recipe"):
        run(
            *("export", "--autoencoder", tmp_path / "codec"),
            *("--denoiser", tmp_path / "codec", "--out", tmp_path / "out"),
        )
    with pytest.raises(BadInputError, match="is no run of the codec recipe"):
        run("export-codec-weights", "--run", photos, "--out", tmp_path / "w.safetensors")


def test_what_is_not_there_is_said_before_anything_is_trained(photos: Path, tmp_path: Path) -> None:
    out = ("--config", "smoke", "--out", tmp_path / "out")
    with pytest.raises(BadInputError, match="abacus"):
        run("autoencoder", *out, "--photos", photos, "--device", "abacus")
    with pytest.raises(MissingDataError, match="no folder"):
        run("codec", *out, "--photos", tmp_path / "absent", "--frames", 0)
    assert not (tmp_path / "out").exists()


def test_a_table_without_a_folder_is_found_before_any_training(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "absent" / "table.csv"
    with pytest.raises(OutputError, match="does not exist"):
        run(
            "denoiser-study",
            "--config",
            "smoke",
            "--photos",
            photos,
            "--out",
            tmp_path / "out",
            "--table",
            table,
        )
    assert list(tmp_path.iterdir()) == []


def test_latents_are_those_of_the_photographs_at_hand(photos: Path, teacher: Path, tmp_path: Path) -> None:
    """A second run beside the first, on other photographs of the same number and sizes."""
    others = tmp_path / "others"
    others.mkdir()
    for path in photos.iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(others / path.name)
    for name, folder in (("a", photos), ("b", others)):
        out = ("--out", tmp_path / "runs" / name)
        run("denoiser", "--config", "smoke", "--photos", folder, "--teacher", teacher, *out)
    a, b = (load_file(path) for path in (tmp_path / "runs" / "cache").iterdir())
    assert a.keys() == b.keys()
    assert not any(torch.equal(a[name], b[name]) for name in a)


def test_septuplets_alone_as_the_paper_trains(tmp_path: Path) -> None:
    if fetch.store().find("vimeo90k-septuplet-48") is None:
        pytest.skip("the Vimeo-90k sample is not in the mirror")
    out = ("--out", tmp_path / "codec")
    run("codec", "--config", "smoke", "--septuplets", "vimeo90k-septuplet-48", *out)
    assert (tmp_path / "codec" / "state.safetensors").is_file()


def test_teacher_reproduces_its_published_round_trip(teacher: Path) -> None:
    found = fetch.store().find("kodak")
    if found is None:
        pytest.skip("Kodak is neither in the mirror nor in the cache")
    pixels = np.asarray(Image.open(next(found.path.glob("*23.png"))).convert("RGB"))
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    model = load_taesd(teacher)
    with torch.no_grad():
        decoded = model.decode(model.encode(x).latents).sample.clamp(-1, 1)
    psnr = float(-10 * torch.log10(((decoded - x) / 2).square().mean()))
    assert 26.5 < psnr < 29.5  # a swapped layer gives less than 15
