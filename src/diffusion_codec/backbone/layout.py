"""Reading a backbone folder in the diffusers layout, and saying what is wrong with it.

vae/        AutoencoderKL or AutoencoderTiny     E and D
unet/       UNet2DConditionModel                 eps_theta, epsilon- or v-prediction
scheduler/  scheduler_config.json                the noise schedule
empty_prompt.safetensors                         the text condition, or text_encoder/ and tokenizer/ to compute it
backbone.json                                    name and latent space; inferred where it is missing
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors import SafetensorError, safe_open

from diffusion_codec.errors import BadInputError
from diffusion_codec.schedule import NoiseSchedule

AUTOENCODERS = {"AutoencoderTiny": AutoencoderTiny, "AutoencoderKL": AutoencoderKL}
WEIGHTS = "diffusion_pytorch_model"
VARIANTS = ("", ".fp16")
STABLE_DIFFUSION_SPACE = "stable-diffusion-1"
STABLE_DIFFUSION_FACTOR = 0.18215
PREDICTIONS = ("epsilon", "v_prediction")
LEGACY_ATTENTION = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
"""How the autoencoder files of Stable Diffusion 1 and 2 name their attention, written before diffusers renamed it."""


@dataclass(frozen=True)
class Description:
    """What a folder's configurations say: the classes of both networks, the schedule, what the model is called."""

    autoencoder: Any
    denoiser: Any
    schedule: NoiseSchedule
    prediction: str
    name: str
    latent_space: str


@dataclass(frozen=True)
class Parts:
    """What a folder holds: both networks, the schedule, and what the model is called."""

    vae: Any
    unet: Any
    schedule: NoiseSchedule
    prediction: str
    name: str
    latent_space: str


def read(folder: Path, dtype: torch.dtype = torch.float32) -> Parts:
    """The parts of a backbone folder, on the CPU.

    Raises:
        BadInputError: not a latent diffusion model, weights pickled, cut short or of another shape, or a latent
            space or noise schedule the codec does not work in.
    """
    about = described(folder)
    vae = _load_part(about.autoencoder, folder / "vae", dtype)
    unet = _load_part(about.denoiser, folder / "unet", dtype)
    return Parts(vae, unet, about.schedule, about.prediction, about.name, about.latent_space)


def described(folder: Path) -> Description:
    """What the configurations of a backbone folder say; its weights need not be there yet.

    Raises:
        BadInputError: as :func:`read`, for what shows without the weights.
    """
    vae = _read_json(folder / "vae" / "config.json")
    unet = _read_json(folder / "unet" / "config.json")
    scheduler = _read_json(folder / "scheduler" / "scheduler_config.json")
    schedule, prediction = _schedule(scheduler, folder)
    name, latent_space = _identity(folder, vae)
    _check_channels(folder, vae, unet)
    autoencoder = _class_of(folder / "vae", vae, AUTOENCODERS)
    denoiser = _class_of(folder / "unet", unet, {"UNet2DConditionModel": UNet2DConditionModel})
    return Description(autoencoder, denoiser, schedule, prediction, name, latent_space)


def weights_file(folder: Path, stem: str = WEIGHTS) -> tuple[Path, str]:
    """The whole safetensors file of a part, full precision before half, and its variant for diffusers.

    Raises:
        BadInputError: there is none; pickled weights, an unfinished download and a file cut short are named.
    """
    for variant in VARIANTS:
        path = folder / f"{stem}{variant}.safetensors"
        if path.is_file():
            check_whole(path)
            return path, variant.lstrip(".")
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        raise BadInputError(
            f"{folder} holds pickled weights only ({', '.join(pickled)}); a pickle can run any program when it is "
            f"read, so it is refused. Convert it once: diffusion-codec backbone convert {folder.parent}"
        )
    unfinished = sorted(path.name for path in folder.glob("*.part"))
    if unfinished:
        raise BadInputError(
            f"{folder} is half a download ({', '.join(unfinished)}): fetch it again to resume"
        )
    raise BadInputError(f"{folder} holds no {stem}.safetensors")


def check_whole(path: Path) -> None:
    """Raise BadInputError if a safetensors file is not as long as its own header says."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size:
                raise BadInputError(f"{path} is cut short or no safetensors file ({size} bytes)")
            header = json.loads(file.read(length))
        ends = [about["data_offsets"][1] for name, about in header.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, BadInputError):
            raise
        raise BadInputError(f"{path} is no safetensors file ({size} bytes)") from error
    if size != expected:
        raise BadInputError(f"{path} has {size} of {expected} bytes: half a download; fetch it again")


def _identity(folder: Path, vae: dict[str, Any]) -> tuple[str, str]:
    """Name and latent space: of backbone.json, else the folder's name and what the autoencoder implies."""
    if (folder / "backbone.json").is_file():
        about = _read_json(folder / "backbone.json")
        try:
            name, space = str(about["name"]), str(about["latent_space"])
        except KeyError as error:
            raise BadInputError(f"{folder / 'backbone.json'} says no {error}") from None
    else:
        name, space = folder.resolve().name, STABLE_DIFFUSION_SPACE
        if vae.get("_class_name") == "AutoencoderTiny":
            raise BadInputError(
                f"{folder}: a tiny autoencoder's configuration does not say whose latents it speaks; if they are "
                f'Stable Diffusion\'s, write {{"name": "{name}", "latent_space": "{space}"}} to backbone.json there'
            )
    factor = vae.get("scaling_factor") or STABLE_DIFFUSION_FACTOR
    if vae.get("_class_name") == "AutoencoderKL" and abs(factor - STABLE_DIFFUSION_FACTOR) > 1e-6:
        raise BadInputError(
            f"{folder}: the autoencoder's scaling factor is {factor:g}, another latent space than that of Stable "
            f"Diffusion 1 and 2 ({STABLE_DIFFUSION_FACTOR}); the codec's weights do not fit it"
        )
    return name, space


def _check_channels(folder: Path, vae: dict[str, Any], unet: dict[str, Any]) -> None:
    channels = (vae.get("latent_channels", 4), unet.get("in_channels", 4), unet.get("out_channels", 4))
    if channels != (4, 4, 4):
        raise BadInputError(
            f"{folder}: the codec works on 4 latent channels; this model has {channels[0]} (autoencoder), "
            f"{channels[1]} (into the denoiser) and {channels[2]} (out of it)"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInputError(
            f"{path} is missing; a backbone folder holds vae/, unet/ and scheduler/ in the layout of diffusers"
        ) from None
    except ValueError as error:
        raise BadInputError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadInputError(f"{path} holds no JSON object")
    return value


def _class_of(folder: Path, config: dict[str, Any], known: dict[str, Any]) -> Any:
    kind = config.get("_class_name", "")
    if kind not in known:
        raise BadInputError(f"{folder}: class {kind!r}; known: {', '.join(known)}")
    return known[kind]


def _load_part(model_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """The network of a folder, its numbers in ``dtype`` whatever they are stored in; one copy of them in memory.

    Not by diffusers' ``from_pretrained``: while that reads, networks that other threads make get no numbers.
    """
    path, _ = weights_file(folder)
    try:
        with torch.device("meta"):
            network = model_class.from_config(_read_json(folder / "config.json"))
        with safe_open(path, "pt") as file:
            stored = {_renamed(name): file.get_tensor(name).to(dtype) for name in file.keys()}  # noqa: SIM118
        network.load_state_dict(stored, strict=False, assign=True)
        parts = (*network.named_parameters(), *network.named_buffers())
        lacking = [name for name, value in parts if value.is_meta]
        if lacking:
            raise ValueError(f"{path.name} lacks {', '.join(lacking[:3])}")
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError) as error:
        raise BadInputError(f"{folder} does not hold a {model_class.__name__}: {error}") from error
    return network.eval()


def _renamed(name: str) -> str:
    """Today's name of a tensor."""
    if ".attentions." in name:
        for new, old in LEGACY_ATTENTION.items():
            name = name.replace(old, new)
    return name


def _schedule(config: dict[str, Any], folder: Path) -> tuple[NoiseSchedule, str]:
    kind = config.get("beta_schedule")
    if kind != "scaled_linear" or config.get("trained_betas") or config.get("rescale_betas_zero_snr"):
        raise BadInputError(f"{folder}: noise schedule {kind!r} or rescaled; known: plain 'scaled_linear'")
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise BadInputError(f"{folder}: prediction {prediction!r}; known: {', '.join(PREDICTIONS)}")
    try:
        numbers = config["beta_start"], config["beta_end"], config["num_train_timesteps"]
    except KeyError as error:
        raise BadInputError(f"{folder}: the scheduler's configuration says no {error}") from None
    return NoiseSchedule(*numbers), prediction
