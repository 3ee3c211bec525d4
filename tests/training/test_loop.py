import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffusion_codec.errors import BadInputError
from diffusion_codec.training.autoencoder import AutoencoderConfig, build_autoencoder
from diffusion_codec.training.codec import CodecConfig, CodecRecipe
from diffusion_codec.training.configuration import read_config
from diffusion_codec.training.denoiser import DenoiserConfig, DenoiserRecipe
from diffusion_codec.training.export import load_denoiser, run_history
from diffusion_codec.training.loop import LoopConfig, NotFiniteError, learning_rate_at, only_trainer, train
from diffusion_codec.training.photos import LatentCrops
from tests.tiny import tiny_backbone


def crops(size: int = 64) -> LatentCrops:
    generator = torch.Generator().manual_seed(0)
    photos = [torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8, generator=generator) for _ in range(3)]
    latents = [torch.randn(4, 12, 16, generator=generator) for _ in photos]
    return LatentCrops(photos, latents, size)


def codec_recipe(**changes: object) -> CodecRecipe:
    settings: dict[str, object] = {
        "steps": 6,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "crop": 64,
        "warmup_steps": 2,
    }
    settings |= {
        "rate_only_steps": 2,
        "rate_only_batch_size": 2,
        "entropy_width": 8,
        "checkpoint_every": 2,
        "log_every": 1,
    }
    return CodecRecipe(CodecConfig.model_validate(settings | changes), tiny_backbone(), crops())


def denoiser_recipe(seed: int = 0) -> DenoiserRecipe:
    settings = {
        "steps": 6,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "crop": 64,
        "widths": (16, 16),
        "seed": seed,
    }
    config = DenoiserConfig.model_validate(
        settings | {"layers_per_block": 1, "checkpoint_every": 2, "log_every": 2}
    )
    return DenoiserRecipe(config, crops().latents)


@pytest.mark.parametrize(("make", "stop"), [(codec_recipe, 1), (codec_recipe, 3), (denoiser_recipe, 3)])
def test_resumed_equals_uninterrupted(make, stop: int, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    whole = train(make(), tmp_path / "whole")
    train(make(), tmp_path / "parts", stop_after=stop)
    parts = train(make(), tmp_path / "parts")
    assert parts.step == whole.step == 6
    for name, value in whole.parameters.items():
        assert torch.equal(value, parts.parameters[name]), name
        assert torch.equal(whole.ema[name], parts.ema[name]), name


def test_curves_have_each_row_once_after_a_resume(tmp_path: Path) -> None:
    train(codec_recipe(), tmp_path, stop_after=3)
    train(codec_recipe(), tmp_path)
    rows = list(csv.DictReader((tmp_path / "losses.csv").open()))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]


class TwoStages:
    """Stage one, three steps long, logs ``early``; stage two ``late``. Terms are the step's number."""

    def __init__(self, log_every: int = 2) -> None:
        self.config = LoopConfig(steps=6, batch_size=1, learning_rate=1e-3, log_every=log_every)
        self.model: nn.Module = nn.Linear(1, 1)

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        term = torch.tensor(float(step))
        return {"loss": self.model(torch.ones(1, 1)).sum(), "early" if step < 3 else "late": term}


def test_a_run_that_is_done_says_so_and_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(TwoStages(), tmp_path)
    before, said = (tmp_path / "losses.csv").read_bytes(), capsys.readouterr().out
    train(TwoStages(), tmp_path)
    assert ("nothing to do" in said, "6 steps already: nothing to do" in capsys.readouterr().out) == (
        False,
        True,
    )
    assert (tmp_path / "losses.csv").read_bytes() == before


@pytest.mark.parametrize("stop", [None, 2, 4])
def test_curves_keep_the_columns_of_every_stage(stop: int | None, tmp_path: Path) -> None:
    if stop:
        train(TwoStages(), tmp_path, stop)
    train(TwoStages(), tmp_path)
    with (tmp_path / "losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "loss", "early", "steps_per_second", "late"]
    assert [row["early"] for row in rows] == ["0.5", "2.0", ""]
    assert [row["late"] for row in rows] == ["", "3.0", "4.5"]
    assert set(run_history(tmp_path)["losses"]) == {"loss", "late"}
    (tmp_path / "losses.csv").write_text("step,loss\n")
    with pytest.raises(BadInputError, match=r"has no losses\.csv that says"):
        run_history(tmp_path)


def settings_of(out: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((out / "config.json").read_text())
    return stored


def test_a_run_is_not_continued_with_other_settings(tmp_path: Path) -> None:
    train(codec_recipe(), tmp_path, stop_after=2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        BadInputError, match=r"begun with .*\(learning_rate 0.001, now 0.002; seed 0, now 1\)"
    ):
        train(codec_recipe(learning_rate=2e-3, seed=1, steps=8), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_is_continued_to_more_steps(tmp_path: Path) -> None:
    train(codec_recipe(), tmp_path)
    state = train(codec_recipe(steps=8, log_every=2, checkpoint_every=4), tmp_path)
    assert state.step == settings_of(tmp_path)["steps"] == 8


def test_a_run_from_before_a_setting_existed_has_its_default(tmp_path: Path) -> None:
    train(codec_recipe(), tmp_path, stop_after=2)
    kept = {name: value for name, value in settings_of(tmp_path).items() if name != "dithered"}
    (tmp_path / "config.json").write_text(json.dumps(kept | {"l2_weight": 0.0}))  # and one that is no more
    with pytest.raises(BadInputError, match="dithered False, now True"):
        train(codec_recipe(dithered=True), tmp_path)
    assert train(codec_recipe(), tmp_path).step == 6


def test_a_run_without_its_settings_is_continued(tmp_path: Path) -> None:
    train(codec_recipe(), tmp_path, stop_after=2)
    (tmp_path / "config.json").unlink()
    assert train(codec_recipe(), tmp_path, stop_after=3).step == 3
    assert settings_of(tmp_path)["steps"] == 6


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_damaged_settings_are_one_line(text: str, tmp_path: Path) -> None:
    train(denoiser_recipe(), tmp_path, stop_after=2)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadInputError, match=r"config\.json' is damaged or of another recipe"):
        train(denoiser_recipe(), tmp_path)


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_truncated_checkpoint_is_one_line(size: int, tmp_path: Path) -> None:
    train(denoiser_recipe(), tmp_path, stop_after=2)
    path = tmp_path / "state.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    for read in (lambda: train(denoiser_recipe(), tmp_path), lambda: load_denoiser(tmp_path)):
        with pytest.raises(BadInputError, match=r"state\.safetensors' is truncated.* remove it and train"):
            read()
    path.unlink()
    assert train(denoiser_recipe(), tmp_path, stop_after=2).step == 2


def test_the_backbone_does_not_change(tmp_path: Path) -> None:
    recipe = codec_recipe()
    before = recipe.backbone.weights_hash()
    train(recipe, tmp_path)
    assert recipe.backbone.weights_hash() == before


def test_every_trainable_parameter_gets_a_gradient() -> None:
    recipe = codec_recipe(hyper_channels=2)
    with torch.no_grad():  # zero-initialised outputs hide what lies before them
        for parameter in recipe.model.parameters():
            parameter.add_(0.02 * (torch.rand_like(parameter) - 0.5))
        recipe.model.entropy.hyperprior.analysis[-1].weight.mul_(50)  # hyper symbols other than 0
    recipe.losses(3, torch.Generator().manual_seed(0))["loss"].backward()  # type: ignore[no-untyped-call]
    missing = [n for n, p in recipe.model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


def test_first_stage_trains_the_entropy_model_only() -> None:
    recipe = codec_recipe()
    recipe.losses(0, torch.Generator().manual_seed(0))["loss"].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in recipe.model.parameter_estimation.parameters())


class Exploding:
    def __init__(self) -> None:
        self.config = LoopConfig(steps=5, batch_size=1, learning_rate=1e-3, log_every=1)
        self.model: nn.Module = nn.Linear(1, 1)

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": self.model(torch.ones(1, 1)).sum() / (3 - step)}


def test_a_loss_that_is_not_finite_stops_with_step_and_state(tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError, match="step 3: a loss is not finite"):
        train(Exploding(), tmp_path)
    assert (tmp_path / "state.failed.safetensors").exists()


class Steep(Exploding):
    """A finite loss with a gradient that is not."""

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        weight = self.model.weight.sum()  # type: ignore[union-attr, operator]
        return {"loss": (weight - weight.detach()).abs().sqrt() if step == 3 else weight}


def test_a_gradient_that_is_not_finite_spoils_no_checkpoint(tmp_path: Path) -> None:
    recipe = Steep()
    with pytest.raises(NotFiniteError, match="step 3: the gradient is not finite"):
        train(recipe, tmp_path)
    assert all(part.isfinite().all() for part in recipe.model.parameters())
    with pytest.raises(NotFiniteError):
        train(recipe, tmp_path / "again", stop_after=9)
    kept = train(Steep(), tmp_path / "kept", stop_after=2)
    with pytest.raises(NotFiniteError):
        train(Steep(), tmp_path / "kept")
    stored = load_file(tmp_path / "kept" / "state.safetensors")
    assert torch.equal(stored["model.weight"], kept.parameters["weight"])


def test_what_p_phi_says_is_finite_or_the_run_stops() -> None:
    recipe = codec_recipe()
    with torch.no_grad():
        for parameter in recipe.model.parameter_estimation.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(NotFiniteError, match="P_phi"):
        recipe.losses(3, torch.Generator().manual_seed(0))


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with only_trainer(tmp_path), pytest.raises(BadInputError, match="another run trains"):
        train(denoiser_recipe(), tmp_path)
    train(denoiser_recipe(), tmp_path, stop_after=1)
    assert not (tmp_path / "run.lock").exists()


def test_a_run_goes_on_with_what_it_was_begun_with(tmp_path: Path) -> None:
    begun = {"photographs": "3 of a folder", "backbone": "mini"}
    train(denoiser_recipe(), tmp_path, 2, begun)
    before = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(BadInputError, match="photographs: 3 of a folder, now 4 of a folder"):
        train(denoiser_recipe(), tmp_path, 4, begun | {"photographs": "4 of a folder"})
    assert (tmp_path / "state.safetensors").read_bytes() == before
    assert train(denoiser_recipe(), tmp_path, 4, begun).step == 4
    assert run_history(tmp_path)["origin"] == begun


@pytest.mark.parametrize("log", [b"colour,taste\nred,sweet\n", b"\xff\xfe\x00"])
def test_another_table_in_the_place_of_the_log_is_not_lost(tmp_path: Path, log: bytes) -> None:
    (tmp_path / "losses.csv").write_bytes(log)
    with pytest.raises(BadInputError, match="no log of a run"):
        train(denoiser_recipe(), tmp_path)
    assert (tmp_path / "losses.csv").read_bytes() == log


def test_a_checkpoint_of_another_program_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "state.safetensors")
    with pytest.raises(BadInputError, match="of another model"):
        train(denoiser_recipe(), tmp_path)


@pytest.mark.parametrize(
    ("recipe", "model", "line"),
    [
        ("denoiser", DenoiserConfig, "crop: 0"),
        ("denoiser", DenoiserConfig, "crop: 100"),
        ("denoiser", DenoiserConfig, "widths: [20, 20]"),
        ("denoiser", DenoiserConfig, "widths: []"),
        ("denoiser", DenoiserConfig, "focus_below: -50"),
        ("denoiser", DenoiserConfig, "focus_probability: 7"),
        ("denoiser", DenoiserConfig, "photos_limit: -2"),
        ("denoiser", DenoiserConfig, "final_learning_rate_ratio: -3"),
        ("denoiser", DenoiserConfig, "seed: 99999999999"),
        ("autoencoder", AutoencoderConfig, "halves: []"),
        ("autoencoder", AutoencoderConfig, "encoder_blocks: [0, -1, 3, 3]"),
        ("autoencoder", AutoencoderConfig, "width: 0"),
        ("codec", CodecConfig, "kernel: 17"),
        ("codec", CodecConfig, "energy: 4"),
        ("codec", CodecConfig, "hyper_channels: -1"),
        ("codec", CodecConfig, "log2_lambda: [8, 1]"),
        ("codec", CodecConfig, "log2_lambda: [0, 500]"),
        ("codec", CodecConfig, "rate_only_batch_size: 0"),
    ],
)
def test_a_setting_out_of_range_is_named(
    recipe: str, model: type[LoopConfig], line: str, tmp_path: Path
) -> None:
    name = line.partition(":")[0]
    (tmp_path / "own.yaml").write_text(f"steps: 1\nbatch_size: 1\nlearning_rate: 0.1\n{line}\n")
    with pytest.raises(BadInputError, match=rf"own\.yaml: {name}"):
        read_config(recipe, str(tmp_path / "own.yaml"), model)


def test_a_list_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("- steps\n")
    with pytest.raises(BadInputError, match="holds no settings"):
        read_config("denoiser", str(tmp_path / "own.yaml"), DenoiserConfig)


def test_learning_rate_rises_then_falls() -> None:
    config = LoopConfig(steps=100, batch_size=1, learning_rate=1.0, warmup_steps=10)
    rates = [learning_rate_at(step, config) for step in range(100)]
    assert rates[0] == 0.1
    assert max(rates) == 1.0
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)


@pytest.mark.parametrize(
    ("recipe", "model"),
    [("autoencoder", AutoencoderConfig), ("denoiser", DenoiserConfig), ("codec", CodecConfig)],
)
@pytest.mark.parametrize("name", ["full", "cpu", "smoke"])
def test_shipped_configurations_are_valid(recipe: str, model: type[LoopConfig], name: str) -> None:
    assert read_config(recipe, name, model).steps > 0


@pytest.mark.parametrize(("first", "then"), [("full", "full-polish"), ("cpu", "polish")])
def test_polishing_goes_on_with_the_shape_it_follows(first: str, then: str) -> None:
    trained, polished = (read_config("autoencoder", name, AutoencoderConfig) for name in (first, then))
    for name in ("width", "encoder_blocks", "decoder_blocks"):
        assert getattr(trained, name) == getattr(polished, name)


def test_an_unknown_key_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("steps: 1\nbatch_size: 1\nlearning_rate: 1\nlerning_rate: 2\n")
    with pytest.raises(BadInputError, match="lerning_rate"):
        read_config("denoiser", str(path), DenoiserConfig)


@pytest.mark.parametrize("data", [b"steps: [1\nbatch_size: 1\n", b"a: b: c", b"\xff\xfe\xff"])
def test_what_is_no_yaml_is_one_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    with pytest.raises(BadInputError, match=r"x\.yaml is not YAML") as caught:
        read_config("denoiser", str(path), DenoiserConfig)
    assert "\n" not in str(caught.value)


def test_autoencoder_of_the_configured_shape() -> None:
    config = AutoencoderConfig(
        steps=1,
        batch_size=1,
        learning_rate=1,
        width=8,
        encoder_blocks=(0, 1, 1, 1),
        decoder_blocks=(1, 1, 1, 0),
    )
    model = build_autoencoder(config)
    y = model.encode(torch.zeros(1, 3, 32, 48)).latents
    assert y.shape == (1, 4, 4, 6)
    assert model.decode(y).sample.shape == (1, 3, 32, 48)
