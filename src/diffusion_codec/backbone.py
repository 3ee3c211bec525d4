"""The frozen latent diffusion model: encode, denoise, decode.

A backbone is a folder in the diffusers layout::

    vae/        AutoencoderTiny or AutoencoderKL     E and D
    unet/       UNet2DConditionModel                 eps_theta, epsilon- or v-prediction
    scheduler/  scheduler_config.json                the noise schedule
    empty_prompt.safetensors                         the text condition: nothing
    backbone.json                                    name, latent space
"""

import hashlib
import json
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn

from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.schedule import NoiseSchedule
from diffusion_codec.tiling import tiled

STRIDE = 8
"""Pixels per latent position, a side."""

PIXEL_TILE, PIXEL_OVERLAP = 1024, 128
LATENT_TILE, LATENT_OVERLAP = 256, 32
AUTOENCODERS = {"AutoencoderTiny": AutoencoderTiny, "AutoencoderKL": AutoencoderKL}
EMBEDDED = ("mini",)


def embedded_folder(name: str) -> Path:
    """The folder of a backbone that ships with the package.

    Raises:
        MissingDataError: no such backbone is embedded; the message lists those that are.
    """
    folder = Path(str(resources.files("diffusion_codec"))) / "weights" / name
    if name not in EMBEDDED or not folder.is_dir():
        raise MissingDataError(f"no embedded backbone {name!r}; embedded: {', '.join(EMBEDDED)}")
    return folder


class Backbone(nn.Module):
    """A frozen latent diffusion model in evaluation mode.

    Latents are scaled by the autoencoder's ``scaling_factor``: what the denoiser sees at t = 0.
    """

    empty_prompt: Tensor

    def __init__(
        self,
        vae: AutoencoderTiny | AutoencoderKL,
        unet: UNet2DConditionModel,
        schedule: NoiseSchedule,
        empty_prompt: Tensor,
        *,
        prediction: str = "epsilon",
        name: str = "unnamed",
        latent_space: str = "stable-diffusion-1",
    ):
        super().__init__()
        self.vae, self.unet, self.schedule = vae, unet, schedule
        self.prediction, self.name, self.latent_space = prediction, name, latent_space
        self.register_buffer("empty_prompt", empty_prompt, persistent=False)
        self.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path = "mini", device: str | torch.device = "cpu"
    ) -> "Backbone":
        """Load an embedded backbone by name, or a folder of the layout above.

        Raises:
            MissingDataError: neither an embedded name nor a folder.
            BadInputError: the folder is not a latent diffusion model the codec can use.
        """
        folder = Path(name_or_folder)
        if not folder.is_dir():
            folder = embedded_folder(str(name_or_folder))
        vae = _load_autoencoder(folder / "vae")
        unet = _load_part(UNet2DConditionModel, folder / "unet")
        if unet.config.in_channels != 4 or vae.config.latent_channels != 4:
            raise BadInputError(
                f"{folder}: the codec works on 4 latent channels; this model has "
                f"{vae.config.latent_channels} (autoencoder) and {unet.config.in_channels} (denoiser)"
            )
        scheduler = _read_json(folder / "scheduler" / "scheduler_config.json")
        about = _read_json(folder / "backbone.json")
        prompt = load_file(folder / "empty_prompt.safetensors")["embedding"].float()
        backbone = cls(
            vae.float(),
            unet.float(),
            _schedule(scheduler, folder),
            prompt,
            prediction=scheduler.get("prediction_type", "epsilon"),
            name=about["name"],
            latent_space=about["latent_space"],
        )
        # the stubs of torch do not know this overload
        backbone.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return backbone

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.empty_prompt.device

    @cached_property
    def scaling_factor(self) -> float:
        """The factor the autoencoder's latents are multiplied by before diffusion."""
        return float(self.vae.config.scaling_factor)

    def encode(self, x: Tensor) -> Tensor:
        """y = E(x): the mode of the latents, scaled.

        Args:
            x: (N, 3, H, W) in -1..1, sides multiples of 8.

        Returns:
            (N, 4, H/8, W/8).
        """
        return tiled(self._encode, x, tile=PIXEL_TILE, overlap=PIXEL_OVERLAP, scale=1 / STRIDE, align=STRIDE)

    def decode(self, y: Tensor) -> Tensor:
        """x = D(y), not clipped: (N, 4, h, w) -> (N, 3, 8h, 8w) in about -1..1."""
        tile, overlap = PIXEL_TILE // STRIDE, PIXEL_OVERLAP // STRIDE
        return tiled(self._decode, y, tile=tile, overlap=overlap, scale=STRIDE)

    def epsilon(self, y: Tensor, t: Tensor) -> Tensor:
        """eps_theta for latents whose error has standard deviation sigma_t on the scale of y itself.

        Args:
            y: (N, 4, h, w), *not* multiplied by sqrt(alpha_bar_t): this does it.
            t: timesteps, float (N,); fractions are allowed, the denoiser's time embedding is continuous.
        """
        sigma = self.schedule.sigma_at(t.to(y.dtype))[:, None, None, None]
        signal = (1 + sigma**2).rsqrt()
        y_t = signal * y
        out = self._run_unet(y_t, t)
        return out if self.prediction == "epsilon" else signal * out + sigma * signal * y_t

    def denoise(self, y_hat: Tensor, t: Tensor, steps: int) -> Tensor:
        """The reverse process from t to 0 in ``steps`` DDIM steps (Song et al. 2021, eta = 0).

        On the scale of y the DDIM step is y <- y + (sigma_next - sigma) eps_theta(y, sigma): Euler's method
        on the probability flow. The last sigma is 0. ``steps`` = 0 returns y_hat.
        """
        y = y_hat
        for i in range(steps):
            now, then = t * (1 - i / steps), t * (1 - (i + 1) / steps)
            sigma = self.schedule.sigma_at(now.to(y.dtype))
            sigma_next = (
                self.schedule.sigma_at(then.to(y.dtype)) if i + 1 < steps else torch.zeros_like(sigma)
            )
            y = y + (sigma_next - sigma)[:, None, None, None] * self.epsilon(y, now)
        return y

    def weights_hash(self) -> str:
        """SHA-256 over every parameter, in order of name: proof that training left the backbone as it was."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _encode(self, x: Tensor) -> Tensor:
        encoded = self.vae.encode(x)
        y: Tensor = encoded.latents if isinstance(self.vae, AutoencoderTiny) else encoded.latent_dist.mode()
        return y * self.scaling_factor

    def _decode(self, y: Tensor) -> Tensor:
        x: Tensor = self.vae.decode(y / self.scaling_factor).sample
        return x

    def _run_unet(self, y_t: Tensor, t: Tensor) -> Tensor:
        """The denoiser on latents of any size: padded to what its downsampling needs, cropped after."""
        multiple = 2 ** (len(self.unet.config.block_out_channels) - 1)
        height, width = y_t.shape[-2:]
        # two positions a side at the coarsest level: normalisation over a single one is undefined
        down, right = (max(-side % multiple, 2 * multiple - side) for side in (height, width))
        padded = F.pad(y_t, (0, right, 0, down), mode="replicate")

        def network(part: Tensor) -> Tensor:
            prompt = self.empty_prompt.to(part.dtype).expand(len(part), -1, -1)
            predicted: Tensor = self.unet(part, t, prompt, return_dict=False)[0]
            return predicted

        out = tiled(network, padded, tile=LATENT_TILE, overlap=LATENT_OVERLAP, scale=1, align=multiple)
        return out[..., :height, :width]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise BadInputError(
            f"{path} is missing; a backbone folder holds vae/, unet/ and scheduler/"
        ) from None
    except ValueError as error:
        raise BadInputError(f"{path} is not JSON: {error}") from None
    return value


def _load_part(model_class: Any, folder: Path) -> Any:
    if not folder.is_dir():
        raise BadInputError(f"{folder} is missing; a backbone folder holds vae/, unet/ and scheduler/")
    try:
        # the low-memory way needs the package accelerate, and diffusers complains on stderr where it is missing
        return model_class.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInputError(f"{folder} does not hold a {model_class.__name__}: {error}") from error


def _load_autoencoder(folder: Path) -> Any:
    kind = _read_json(folder / "config.json").get("_class_name", "")
    if kind not in AUTOENCODERS:
        raise BadInputError(f"{folder}: autoencoder class {kind!r}; known: {', '.join(AUTOENCODERS)}")
    return _load_part(AUTOENCODERS[kind], folder)


def _schedule(config: dict[str, Any], folder: Path) -> NoiseSchedule:
    if config.get("beta_schedule") != "scaled_linear":
        raise BadInputError(
            f"{folder}: noise schedule {config.get('beta_schedule')!r}; known: 'scaled_linear'"
        )
    return NoiseSchedule(config["beta_start"], config["beta_end"], config["num_train_timesteps"])
