"""Running the frozen latent diffusion model: encode, denoise, decode."""

import hashlib
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn

from diffusion_codec.backbone import layout, prompt, sources
from diffusion_codec.backbone.options import (
    DEFAULT_RUN,
    SMALL_NETWORKS,
    STABLE_DIFFUSION,
    RunOptions,
    Tiles,
    checked_device,
    multiplies_bfloat16,
)
from diffusion_codec.errors import BadInputError
from diffusion_codec.memory import BYTES_PER_PIXEL, held_memory
from diffusion_codec.schedule import NoiseSchedule
from diffusion_codec.tiling import tiled
from diffusion_codec.undisturbed import undisturbed

STRIDE = 8
"""Pixels per latent position, a side."""


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
        latent_space: str = layout.STABLE_DIFFUSION_SPACE,
        run: RunOptions = DEFAULT_RUN,
    ):
        super().__init__()
        self.vae, self.unet, self.schedule, self.run = vae, unet, schedule, run
        self.prediction, self.name, self.latent_space = prediction, name, latent_space
        self.register_buffer("empty_prompt", empty_prompt, persistent=False)
        self.eval().requires_grad_(False)
        self._check_prompt()
        tiles = STABLE_DIFFUSION if isinstance(vae, AutoencoderKL) else SMALL_NETWORKS
        self.tiles = tiles.halved() if run.low_memory else tiles
        self._prepare_networks()
        self._held, self._at_once = 0, 1

    @classmethod
    @torch.inference_mode(False)
    @undisturbed
    def from_pretrained(
        cls,
        name_or_folder: str | Path = "mini",
        device: str | torch.device = "cpu",
        run: RunOptions = DEFAULT_RUN,
    ) -> "Backbone":
        """Load a backbone: an embedded one or one of the manifest by name, ``owner/name`` of the hub, or a folder.

        Weights that are not on this machine are fetched, after one line on standard error that says what, how large,
        under which licence and to where (:mod:`diffusion_codec.backbone.sources`).

        Raises:
            MissingDataError: no such name, or it cannot be fetched.
            BadInputError: the folder is not a latent diffusion model the codec can use, or there is no such device.
        """
        device = checked_device(device)
        source = sources.find(name_or_folder)
        parts = layout.read(source.folder, run.dtype)
        backbone = cls(
            parts.vae,
            parts.unet,
            parts.schedule,
            prompt.load(source).float(),
            prediction=parts.prediction,
            name=source.name or parts.name,
            latent_space=parts.latent_space,
            run=run,
        )
        backbone._speed_up(device)
        backbone.place(device)
        if run.max_memory is not None:
            backbone._held = torch.cuda.memory_allocated(device) if device.type == "cuda" else held_memory()
        return backbone

    def place(self, device: torch.device) -> "Backbone":
        """Move to a device, before a codec is made of it; with ``offload`` the networks follow when they work."""
        if self.run.offload:
            self.empty_prompt = self.empty_prompt.to(device)
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        else:
            # the stubs of torch do not know this overload
            self.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    @property
    def reads_text(self) -> bool:
        """Whether the prompt's embedding makes a difference."""
        return any("CrossAttn" in block for block in self.unet.config.down_block_types)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.empty_prompt.device

    @cached_property
    def scaling_factor(self) -> float:
        """The factor the autoencoder's latents are multiplied by before diffusion."""
        return float(self.vae.config.scaling_factor)

    def prompted(self, embedding: Tensor) -> "Backbone":
        """The same networks under another prompt, whose embedding is float32 (1, tokens, width).

        Raises:
            BadInputError: the embedding is of another text encoder.
        """
        return Backbone(
            self.vae,
            self.unet,
            self.schedule,
            embedding.to(self.device),
            prediction=self.prediction,
            name=self.name,
            latent_space=self.latent_space,
            run=self.run,
        )

    def encode(self, x: Tensor) -> Tensor:
        """y = E(x): the mode of the latents, scaled.

        Args:
            x: (N, 3, H, W) in -1..1 or, as uint8, in 0..255; sides multiples of 8.

        Returns:
            (N, 4, H/8, W/8).
        """
        tiles = self.tiles_for(x.shape[-2] * x.shape[-1])
        tile, overlap = tiles.pixels, tiles.pixel_overlap
        return tiled(self._encode, x, tile=tile, overlap=overlap, scale=1 / STRIDE, align=STRIDE)

    def decode(self, y: Tensor, finish: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """x = D(y), not clipped: (N, 4, h, w) -> (N, 3, 8h, 8w) in about -1..1; or ``finish`` of that.

        A large picture is finished row of tiles by row of tiles: bytes take a quarter of the memory of floats.
        """
        tiles = self.tiles_for(y.shape[-2] * y.shape[-1] * STRIDE**2)
        tile, overlap = tiles.pixels // STRIDE, tiles.pixel_overlap // STRIDE
        return tiled(self._decode, y, tile=tile, overlap=overlap, scale=STRIDE, finish=finish)

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
            y = self.step(y, t * (1 - i / steps), t * (1 - (i + 1) / steps), last=i + 1 == steps)
        return y

    def step(self, y: Tensor, now: Tensor, then: Tensor, *, last: bool = False) -> Tensor:
        """One DDIM step from timestep ``now`` to ``then``, both (N,); the last one ends at sigma = 0."""
        sigma = self.schedule.sigma_at(now.to(y.dtype))
        sigma_next = torch.zeros_like(sigma) if last else self.schedule.sigma_at(then.to(y.dtype))
        return y + (sigma_next - sigma)[:, None, None, None] * self.epsilon(y, now)

    def tiles_for(self, pixels: int) -> Tiles:
        """The tiles in which a picture of so many pixels is worked on, under the memory that is allowed.

        Raises:
            LimitExceededError: it is not enough for the smallest ones.
        """
        if self.run.max_memory is None:
            return self.tiles
        part = (self.run.max_memory - self._held) // self._at_once
        return self.tiles.within(part - BYTES_PER_PIXEL * pixels)

    def share(self, wanted: int, sizes: Iterable[tuple[int, int]]) -> int:
        """How many pictures of these sizes (width, height) may be worked on at once: ``wanted`` or fewer, at least 1.

        One with ``offload``, since the networks move, and on Apple's GPU, which PyTorch lets one thread use. Under
        ``max_memory`` as many as have room for the largest picture and the smallest tiles; from here on each of them is
        given an equal part of that memory.
        """
        if self.run.offload or self.device.type == "mps":
            return 1
        if self.run.max_memory is None:
            return wanted
        largest = max((-(-w // STRIDE) * -(-h // STRIDE) * STRIDE**2 for w, h in sizes), default=0)
        each = self.tiles.least_memory + BYTES_PER_PIXEL * largest
        self._at_once = max(1, min(wanted, (self.run.max_memory - self._held) // each))
        return self._at_once

    @cached_property
    def fingerprint(self) -> str:
        """The start of :meth:`weights_hash` as loaded: the same on machines that then run at another precision."""
        return self.weights_hash()[:16]

    def weights_hash(self) -> str:
        """SHA-256 over every parameter, in order of name: proof that training left the backbone as it was."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(name.encode() + raw.numpy().tobytes())
        return digest.hexdigest()

    def _encode(self, x: Tensor) -> Tensor:
        self._bring(self.vae)
        if x.dtype == torch.uint8:
            x = x.float().div_(127.5).sub_(1)
        encoded = self.vae.encode(x.to(self.run.dtype))
        y: Tensor = encoded.latents if isinstance(self.vae, AutoencoderTiny) else encoded.latent_dist.mode()
        return y.float() * self.scaling_factor

    def _decode(self, y: Tensor) -> Tensor:
        scaled = y / self.scaling_factor
        self._bring(self.vae)
        dtype = next(self.vae.decoder.parameters()).dtype
        x: Tensor = self.vae.decode(scaled.to(dtype)).sample
        return x.float()

    def _run_unet(self, y_t: Tensor, t: Tensor) -> Tensor:
        """The denoiser on latents of any size: padded to what its downsampling needs, cropped after."""
        multiple = 2 ** (len(self.unet.config.block_out_channels) - 1)
        height, width = y_t.shape[-2:]
        # two positions a side at the coarsest level: normalisation over a single one is undefined
        down, right = (max(-side % multiple, 2 * multiple - side) for side in (height, width))
        padded = F.pad(y_t, (0, right, 0, down), mode="replicate")
        self._bring(self.unet)
        prompt_embedding = self.empty_prompt.to(self.run.dtype)

        def network(part: Tensor) -> Tensor:
            condition = prompt_embedding.expand(len(part), -1, -1)
            predicted: Tensor = self.unet(part.to(self.run.dtype), t, condition, return_dict=False)[0]
            return predicted.float()

        tiles = self.tiles_for(height * width * STRIDE**2)
        tile, overlap = tiles.latents, tiles.latent_overlap
        out = tiled(network, padded, tile=tile, overlap=overlap, scale=1, align=multiple)
        return out[..., :height, :width]

    def _bring(self, network: nn.Module) -> None:
        """With ``offload``: the network to the device, after the other one has made room for it."""
        if self.run.offload:
            other = self.unet if network is self.vae else self.vae
            other.to("cpu")
            network.to(self.device)

    def _prepare_networks(self) -> None:
        if self.run.low_memory:
            self.vae.enable_slicing()
            if self.reads_text:
                self.unet.set_attention_slice("auto")
        if self.run.compiled:
            for network in (self.vae.encoder, self.vae.decoder, self.unet):
                network.compile()

    def _speed_up(self, device: torch.device) -> None:
        """What changes no number but by rounding, and what ``auto`` asks for; the weights stay as they are now."""
        if not isinstance(self.vae, AutoencoderTiny):
            return
        for module in self.vae.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = True
        if self.run.precision == "auto" and multiplies_bfloat16(device):
            _ = self.fingerprint  # of the weights before they are rounded
            self.vae.decoder.bfloat16()

    def _check_prompt(self) -> None:
        width, expected = self.empty_prompt.shape[-1], self.unet.config.cross_attention_dim
        if self.reads_text and width != expected:
            raise BadInputError(
                f"the empty prompt's embedding has {width} numbers a token, the denoiser of {self.name} expects "
                f"{expected}: it is of another text encoder"
            )
