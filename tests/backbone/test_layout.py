"""What is no backbone the codec can use is said in one sentence, before anything large is read."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from diffusion_codec.backbone import Backbone, layout
from diffusion_codec.backbone.cli import app
from diffusion_codec.backbone.layout import LEGACY_ATTENTION
from diffusion_codec.backbone.random_model import SHAPES, write_random
from diffusion_codec.errors import BadInputError

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(tiny_models: dict[int, Path], tmp_path: Path) -> Path:
    return shutil.copytree(tiny_models[1], tmp_path / "model")


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_hubs_layout_needs_no_file_of_ours(model: Path) -> None:
    backbone = Backbone.from_pretrained(model)
    assert (backbone.name, backbone.latent_space) == ("model", "stable-diffusion-1")
    assert (backbone.prediction, backbone.scaling_factor) == ("epsilon", 0.18215)


def test_our_own_file_names_a_model(model: Path) -> None:
    (model / "backbone.json").write_text(json.dumps({"name": "mine", "latent_space": "another"}))
    backbone = Backbone.from_pretrained(model)
    assert (backbone.name, backbone.latent_space) == ("mine", "another")


def test_attention_by_its_old_names_is_read(model: Path) -> None:
    stored = load_file(model / "vae" / WEIGHTS)
    old = [name for name in stored if any(part in name for part in LEGACY_ATTENTION.values())]
    assert len(old) == 16
    vae = layout.read(model).vae
    query = vae.state_dict()["encoder.mid_block.attentions.0.to_q.weight"]
    assert torch.equal(query, stored["encoder.mid_block.attentions.0.query.weight"])


@pytest.mark.parametrize(
    ("shape", "millions"), [("stable-diffusion-1", 859.5), ("stable-diffusion-2", 865.9)]
)
def test_the_shapes_are_the_real_ones(shape: str, millions: float) -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**SHAPES[shape].unet), AutoencoderKL(**SHAPES[shape].vae)
    count = [sum(p.numel() for p in network.parameters()) / 1e6 for network in (unet, vae)]
    assert count == [pytest.approx(millions, abs=0.05), pytest.approx(83.7, abs=0.05)]


def test_half_precision_files_are_read_into_float32(tmp_path: Path) -> None:
    write_random(tmp_path / "half", "tiny-1", torch.float16)
    path = tmp_path / "half" / "unet" / WEIGHTS
    path.rename(path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    backbone = Backbone.from_pretrained(tmp_path / "half")
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}


def test_a_folder_that_is_no_diffusion_model(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"vae.config\.json is missing; a backbone folder holds vae/"):
        layout.read(tmp_path)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("vae", {"latent_channels": 16}, r"4 latent channels; this model has 16 \(autoencoder\)"),
        ("unet", {"in_channels": 9}, r"9 \(into the denoiser\)"),
        ("vae", {"scaling_factor": 0.13025}, r"scaling factor is 0\.13025, another latent space"),
        (
            "vae",
            {"_class_name": "AutoencoderDC"},
            "class 'AutoencoderDC'; known: AutoencoderTiny, AutoencoderKL",
        ),
        ("vae", {"_class_name": "AutoencoderTiny"}, "does not say whose latents"),
        ("unet", {"_class_name": "SD3Transformer2DModel"}, "known: UNet2DConditionModel"),
        ("unet", {"block_out_channels": [16, 32]}, "does not hold a UNet2DConditionModel"),
        ("scheduler", {"prediction_type": "sample"}, "prediction 'sample'"),
        ("scheduler", {"beta_schedule": "linear"}, "known: plain 'scaled_linear'"),
        ("scheduler", {"rescale_betas_zero_snr": True}, "rescaled"),
    ],
)
def test_another_kind_of_model_is_refused(
    file: str, values: dict[str, Any], message: str, model: Path
) -> None:
    path = model / file / ("scheduler_config.json" if file == "scheduler" else "config.json")
    change(path, **values)
    with pytest.raises(BadInputError, match=message):
        layout.read(model)


def test_a_missing_number_of_the_schedule_is_named(model: Path) -> None:
    (model / "scheduler" / "scheduler_config.json").write_text('{"beta_schedule": "scaled_linear"}')
    with pytest.raises(BadInputError, match="beta_start"):
        layout.read(model)


def test_half_a_download_is_named(model: Path) -> None:
    path = model / "unet" / WEIGHTS
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 1000)
    with pytest.raises(BadInputError, match=f"has {size - 1000} of {size} bytes: half a download"):
        layout.read(model)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(BadInputError, match="cut short or no safetensors"):
        layout.read(model)
    path.rename(path.with_name(WEIGHTS + ".part"))
    with pytest.raises(BadInputError, match="fetch it again to resume"):
        layout.read(model)


def test_a_file_without_all_of_its_numbers_is_refused(model: Path) -> None:
    path = model / "unet" / WEIGHTS
    stored = load_file(path)
    del stored["conv_in.weight"]
    save_file(stored, path)
    with pytest.raises(BadInputError, match=rf"UNet2DConditionModel: {WEIGHTS} lacks conv_in.weight"):
        layout.read(model)


def test_pickled_weights_are_refused_and_the_command_converts_them(model: Path) -> None:
    before = Backbone.from_pretrained(model)
    for part, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        path = model / part / f"{stem}.safetensors"
        name = "pytorch_model.bin" if stem == "model" else "diffusion_pytorch_model.bin"
        torch.save(load_file(path), path.with_name(name))
        path.unlink()
    with pytest.raises(BadInputError, match=f"pickle can run any program .* backbone convert {model}"):
        layout.read(model)
    converted = CliRunner().invoke(app, ["convert", str(model)])
    assert converted.output.count("written") == 2, converted.output
    after = Backbone.from_pretrained(model)
    assert after.weights_hash() == before.weights_hash()


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


def test_a_pickle_that_runs_a_program_is_not_converted(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (model / "unet" / WEIGHTS).unlink()
    torch.save({"weight": Hostile()}, model / "unet" / "diffusion_pytorch_model.bin")
    run = CliRunner().invoke(app, ["convert", str(model)])
    assert isinstance(run.exception, BadInputError)
    assert "more than tensors" in str(run.exception)
    assert not (tmp_path / "ran").exists()
    assert not list((model / "unet").glob("*.safetensors"))


def test_a_random_model_is_not_written_over(model: Path) -> None:
    with pytest.raises(BadInputError, match="exists already"):
        write_random(model, "tiny-1")
    with pytest.raises(BadInputError, match="no shape 'huge'; known: stable-diffusion-1"):
        write_random(model.parent / "new", "huge")
