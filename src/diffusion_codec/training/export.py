"""From training states to the files that ship: ``weights/mini`` and ``weights/codec``."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import DDIMScheduler
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from diffusion_codec import codec_weights
from diffusion_codec.backbone.layout import STABLE_DIFFUSION_SPACE
from diffusion_codec.errors import BadInputError
from diffusion_codec.schedule import STABLE_DIFFUSION
from diffusion_codec.training.autoencoder import AutoencoderConfig, build_autoencoder
from diffusion_codec.training.codec import CodecConfig, CodecModel
from diffusion_codec.training.denoiser import DenoiserConfig, build_denoiser
from diffusion_codec.training.loop import LoopConfig, open_checkpoint

Config = TypeVar("Config", bound=LoopConfig)
DISCRIMINATOR = ".discriminator."
"""Part of a checkpoint's names that only training needs."""


def averaged_weights(runs: Sequence[Path], model: nn.Module) -> nn.Module:
    """``model`` with the moving averages of the runs' last checkpoints; of two for one parameter, the later run's.

    Raises:
        BadInputError: a folder holds no whole checkpoint of this model, or a parameter is in none of them.
    """
    state: dict[str, Tensor] = {}
    for run in runs:
        path = run / "state.safetensors"
        if not path.is_file():
            raise BadInputError(f"{run} holds no checkpoint; train first")
        with open_checkpoint(path) as file:
            names = [n for n in file.keys() if n.startswith("ema.") and DISCRIMINATOR not in n]  # noqa: SIM118
            state |= {n.removeprefix("ema."): file.get_tensor(n) for n in names}
    found = model.load_state_dict(state, strict=False)
    if found.missing_keys or found.unexpected_keys:
        where = ", ".join(map(str, runs))
        missing = f"; nothing trained {found.missing_keys[0]}" if found.missing_keys else ""
        raise BadInputError(f"{where}: checkpoints of another shape than config.json says{missing}")
    return model.eval().requires_grad_(False)


def _config(run: Path, model: type[Config]) -> Config:
    """The configuration of a run. Raises BadInputError for a folder that is no run of this recipe."""
    try:
        return model.model_validate_json((run / "config.json").read_text())
    except (OSError, ValidationError) as error:
        recipe = model.__name__.removesuffix("Config").lower()
        raise BadInputError(f"{run} is no run of the {recipe} recipe") from error


def load_autoencoder(runs: Sequence[Path]) -> Any:
    """The autoencoder of one run, or of two that trained a half each; float32."""
    return averaged_weights(runs, build_autoencoder(_config(runs[-1], AutoencoderConfig)))


def begin_from(model: nn.Module, runs: Sequence[Path], config: AutoencoderConfig) -> None:
    """Give an autoencoder to be trained the weights of earlier runs; a discriminator starts anew.

    Raises:
        BadInputError: they are of another shape than ``config``.
    """
    begun = _config(runs[-1], AutoencoderConfig)
    for name in ("width", "encoder_blocks", "decoder_blocks"):
        old, new = getattr(begun, name), getattr(config, name)
        if old != new:
            raise BadInputError(
                f"{runs[-1]} has {name} {old}, this configuration {new}: give both the same shape"
            )
    model.load_state_dict(load_autoencoder(runs).state_dict(), strict=False)


def load_denoiser(run: Path) -> Any:
    """The denoiser of a run, float32."""
    return averaged_weights([run], build_denoiser(_config(run, DenoiserConfig)))


def export_backbone(
    autoencoder: Sequence[Path],
    denoiser: Path,
    folder: Path,
    name: str,
    latent_space: str = STABLE_DIFFUSION_SPACE,
) -> None:
    """Write the diffusers layout of :mod:`diffusion_codec.backbone`, weights in half precision.

    ``training.json`` beside it keeps how both parts were trained, for the model card.

    Raises:
        BadInputError: a run is of another recipe, or a weight is not finite in half precision; nothing is written.
    """
    vae, unet = (_half(part) for part in (load_autoencoder(autoencoder), load_denoiser(denoiser)))
    runs = {
        "autoencoder" if len(autoencoder) == 1 else f"autoencoder, {run.name}": run for run in autoencoder
    }
    history = {part: run_history(run) for part, run in (runs | {"denoiser": denoiser}).items()}
    vae.save_pretrained(folder / "vae")
    config = folder / "vae" / "config.json"
    # diffusers writes this key and warns when it reads it
    kept = {k: v for k, v in json.loads(config.read_text()).items() if k != "block_out_channels"}
    config.write_text(json.dumps(kept, indent=1))
    unet.save_pretrained(folder / "unet")
    prediction = _config(denoiser, DenoiserConfig).prediction
    scheduler = DDIMScheduler(
        beta_start=STABLE_DIFFUSION.beta_start,
        beta_end=STABLE_DIFFUSION.beta_end,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type=prediction,
    )
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "backbone.json").write_text(json.dumps({"name": name, "latent_space": latent_space}, indent=1))
    save_file({"embedding": torch.zeros(1, 1, 1)}, folder / "empty_prompt.safetensors")
    (folder / "training.json").write_text(json.dumps(history, indent=1))


def run_history(run: Path) -> dict[str, Any]:
    """Configuration, origin, steps done, hours of computing (from the logged speeds) and last losses of a run."""
    log = run / "losses.csv"
    rows = list(csv.DictReader(log.read_text(encoding="utf-8").splitlines())) if log.is_file() else []
    if not rows:
        raise BadInputError(f"{run} has no losses.csv that says how it was trained: put it back")
    seconds, before = 0.0, 0
    for row in rows:
        seconds += (int(row["step"]) - before) / float(row["steps_per_second"])
        before = int(row["step"])
    last = {k: float(v) for k, v in rows[-1].items() if v and k not in ("step", "steps_per_second")}
    config = json.loads((run / "config.json").read_text())
    told = {"config": config, "steps": before, "hours": round(seconds / 3600, 2), "losses": last}
    return told | {"origin": _origin(run)}


def _origin(run: Path) -> dict[str, str]:
    """What a run was begun with, as far as it is recorded."""
    path = run / "origin.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _half(network: Any) -> Any:
    """A network in half precision. Raises BadInputError if a weight is not finite in it."""
    halved = network.half()
    for name, value in halved.state_dict().items():
        if not value.isfinite().all():
            raise BadInputError(f"{name} is not finite in half precision: the run has diverged")
    return halved


def export_codec(run: Path, path: Path) -> None:
    """Write the codec's own weights."""
    config = _config(run, CodecConfig)
    model = CodecModel(config)
    averaged_weights([run], model)
    codec_weights.save(
        path,
        model.parameter_estimation,
        model.entropy,
        latent_space=_origin(run).get("latent_space", STABLE_DIFFUSION_SPACE),
        variant="tied" if config.tied else "independent",
        dithered=config.dithered,
    )
