"""Recipe 1: the autoencoder of ``mini``.

The encoder learns the teacher's latents (so that ``mini`` and Stable Diffusion speak one latent space); the decoder
learns to bring the photograph back from the encoder's latents, for fidelity (L1) and perception (LPIPS). At last both
may be polished ``end_to_end``: the encoder then learns what our decoder can use, held near the teacher's latents.

The first ``distil_until_step`` steps train every residual block by itself: it gets the teacher's features and learns
what the teacher makes of them (FitNets, Romero et al., ICLR 2015, block by block). Problems three convolutions deep
are learned many times faster than the whole network, which only has to be joined and polished afterwards.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from diffusion_codec.backbone import Backbone
from diffusion_codec.errors import BadInputError
from diffusion_codec.metrics import perceptual_loss
from diffusion_codec.metrics.perceptual import seen_otherwise
from diffusion_codec.metrics.trunks import Net
from diffusion_codec.training.loop import Crop, LoopConfig
from diffusion_codec.training.photos import PhotoCrops

Blocks = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt, NonNegativeInt]
Nets = Annotated[tuple[Net, ...], Field(min_length=1)]
Cut = tuple[int, int]
DISCRIMINATOR = (32, 64)
"""Channels of the discriminator that `mini` was trained with."""
ENCODER_LEAD, DECODER_LEAD = 1, 2
"""Layers before the blocks of each stage."""
FAINT = 1e-3
"""Of the mean over channels: a channel's mean square below which it counts less."""
LEAK = 0.01
"""Slope of our rectifiers below zero while blocks are distilled: a channel that is zero everywhere learns nothing."""


class AutoencoderConfig(LoopConfig):
    """Shape, crop and loss weights of the autoencoder recipe.

    ``halves`` not named stay as they are (untrained, or as the run was started): two processes of one core each
    train the two halves side by side. The decoder then learns from the teacher's latents, or, with ``own_latents``,
    from those of the encoder the run was started with. ``teacher_weight`` asks for the teacher's picture too (L1):
    its decoder was trained against a discriminator, and ours learns that sharpness from it. ``adversarial_weight``
    asks for a discriminator of our own (:func:`build_discriminator`); the gradient it sends into the decoded
    picture is as long as that of an L1 loss of this weight. ``denoised_below`` shows the decoder, in half of its
    pictures, what a denoiser leaves of latents with Gaussian noise at a timestep below this one, after
    ``denoising_steps`` DDIM steps: latents as the reverse process ends with, which no encoder makes. ``end_to_end``
    lets the decoder's loss reach the encoder, which would leave the teacher's latents but for their
    ``latent_weight``; noise and denoiser pass the gradient on as it is. Of several nets of ``perceptual_net`` the mean
    counts. ``perceptual_ensemble`` shows the perceptual net both pictures shifted, turned and resized at random
    (:func:`diffusion_codec.metrics.perceptual.seen_otherwise`).
    """

    halves: tuple[Literal["encoder", "decoder"], ...] = Field(("encoder", "decoder"), min_length=1)
    width: PositiveInt = 64
    encoder_blocks: Blocks = (0, 3, 3, 3)
    decoder_blocks: Blocks = (3, 3, 3, 1)
    crop: Crop = 128
    distil_until_step: NonNegativeInt = 0
    perceptual_weight: NonNegativeFloat = 0.2
    perceptual_net: Net | Nets = "squeeze"
    perceptual_ensemble: bool = False
    teacher_weight: NonNegativeFloat = 0.0
    adversarial_weight: NonNegativeFloat = 0.0
    discriminator_widths: tuple[PositiveInt, ...] = Field(DISCRIMINATOR, min_length=1, max_length=4)
    latent_noise: NonNegativeFloat = 0.0
    denoised_below: int = Field(0, ge=0, le=1000)
    denoising_steps: PositiveInt = 3
    own_latents: bool = False
    end_to_end: bool = False
    latent_weight: NonNegativeFloat = 1.0


def build_autoencoder(config: AutoencoderConfig) -> AutoencoderTiny:
    """An untrained :class:`diffusers.AutoencoderTiny` of the configured shape; latents need no further scaling."""
    return AutoencoderTiny(
        encoder_block_out_channels=(config.width,) * 4,
        decoder_block_out_channels=(config.width,) * 4,
        num_encoder_blocks=config.encoder_blocks,
        num_decoder_blocks=config.decoder_blocks,
        scaling_factor=1.0,
        force_upcast=False,
    )


def build_discriminator(widths: Sequence[int] = DISCRIMINATOR) -> nn.Sequential:
    """Patches, true or decoded (Isola et al., CVPR 2017): (N, 3, H, W) to logits at 1/2^k of the size, (N, 1, h, w).

    Each of the k ``widths`` halves the size; a patch is 18 pixels a side for two, 38 for three.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise((3, *widths)):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2)]
    last = widths[-1]
    return nn.Sequential(*layers, nn.Conv2d(last, last, 3, 1, 1), nn.LeakyReLU(0.2), nn.Conv2d(last, 1, 1))


class AutoencoderRecipe:
    """Latent distillation for the encoder, reconstruction for the decoder, in one step."""

    def __init__(
        self,
        config: AutoencoderConfig,
        photos: list[Tensor],
        teacher: AutoencoderTiny,
        device: str = "cpu",
        denoiser: Backbone | None = None,
    ):
        self.config, self.device, self.denoiser = config, device, denoiser
        if config.denoised_below and denoiser is None:
            raise BadInputError("denoised_below needs a denoiser; name the backbone that has one")
        if config.end_to_end and len(set(config.halves)) < 2:
            raise BadInputError("end_to_end trains both halves")
        torch.manual_seed(config.seed)
        self.model: Any = build_autoencoder(config).to(device, memory_format=torch.channels_last)
        self.teacher: Any = teacher.to(device, memory_format=torch.channels_last)
        for name, half in (("encoder", self.model.encoder), ("decoder", self.model.decoder)):
            half.requires_grad_(name in config.halves)
        if config.adversarial_weight:
            self.model.discriminator = build_discriminator(config.discriminator_widths).to(device)
        self.crops = PhotoCrops([photo.to(device) for photo in photos], config.crop)
        perceives = config.perceptual_weight > 0 and "decoder" in config.halves
        nets = [config.perceptual_net] if isinstance(config.perceptual_net, str) else config.perceptual_net
        self.perceptual = [perceptual_loss(net).to(device) for net in nets] if perceives else []
        theirs = tuple(teacher.config.num_encoder_blocks), tuple(teacher.config.num_decoder_blocks)
        self.encoder_cuts = cuts(config.encoder_blocks, theirs[0], ENCODER_LEAD)
        self.decoder_cuts = cuts(config.decoder_blocks, theirs[1], DECODER_LEAD)
        self.leaking = False
        for module in self.model.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(self._leak)
        if config.distil_until_step and config.width != teacher.config.encoder_block_out_channels[0]:
            raise BadInputError(
                f"width {config.width}: features are distilled at the teacher's width, "
                f"{teacher.config.encoder_block_out_channels[0]}, or not at all (distil_until_step: 0)"
            )

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Single blocks at first, whole halves later; see :class:`diffusion_codec.training.loop.Recipe`."""
        x = self.crops.draw(self.config.batch_size, generator)
        x = x.contiguous(memory_format=torch.channels_last)
        self.leaking = step < self.config.distil_until_step
        return self._distil(x) if self.leaking else self._join(x, generator)

    def _leak(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
        return F.leaky_relu(inputs[0], LEAK) if self.leaking else None

    def _distil(self, x: Tensor) -> dict[str, Tensor]:
        """Every block on the teacher's features; errors relative to the features' mean square."""
        model, teacher, errors = self.model, self.teacher, {}
        if "encoder" in self.config.halves:
            errors["encoder_blocks"] = block_errors(
                model.encoder.layers, teacher.encoder.layers, self.encoder_cuts, x.add(1).div(2)
            )
        if "decoder" in self.config.halves:
            y = self._encoded(model if self.config.own_latents else teacher, x)
            # the decoder of AutoencoderTiny clamps its input softly
            errors["decoder_blocks"] = block_errors(
                model.decoder.layers, teacher.decoder.layers, self.decoder_cuts, torch.tanh(y / 3) * 3
            )
        loss = torch.cat(list(errors.values())).sum()
        return {"loss": loss, **{name: error.mean() for name, error in errors.items()}}

    def _encoded(self, autoencoder: Any, x: Tensor) -> Tensor:
        """Latents as files have them: by rectifiers that do not leak."""
        leaking, self.leaking = self.leaking, False
        with torch.no_grad():
            y: Tensor = autoencoder.encoder(x).float()
        self.leaking = leaking
        return y

    def _join(self, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Each half as it is used."""
        with torch.no_grad():
            y = y_teacher = self.teacher.encoder(x).float()
        terms = {}
        if "encoder" in self.config.halves:
            ours = self.model.encoder(x).float()
            terms["latent_mse"] = F.mse_loss(ours, y)
            y = ours if self.config.end_to_end else ours.detach()
        elif self.config.own_latents:
            with torch.no_grad():
                y = self.model.encoder(x).float()
        if "decoder" in self.config.halves:
            terms |= self._reconstruction(x, y, y_teacher, generator)
        weights = {
            "latent_mse": self.config.latent_weight,
            "perceptual": self.config.perceptual_weight,
            "teacher_l1": self.config.teacher_weight,
            "adversarial": self.config.adversarial_weight,
        }
        loss = torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()
        return {"loss": loss, **terms}

    def _reconstruction(
        self, x: Tensor, y: Tensor, y_teacher: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        config = self.config
        noise = torch.randn(y.shape, generator=generator) * config.latent_noise
        noise = noise * torch.rand(len(y), 1, 1, 1, generator=generator)
        y = y + noise.to(self.device)
        if config.denoised_below:
            y = self._noised_and_denoised(y, generator)
        decoded = self.model.decoder(y).float()
        terms = {"l1": F.l1_loss(decoded, x)}
        if config.teacher_weight:
            with torch.no_grad():
                picture = self.teacher.decoder(y_teacher).float()
            terms["teacher_l1"] = F.l1_loss(decoded, picture)
        if self.perceptual:
            pair = decoded, x
            if config.perceptual_ensemble:
                # drawn with the batch first, the first row used for all of it
                drawn = torch.rand(len(x), 4, generator=generator)
                pair = seen_otherwise(decoded, x, drawn[0].tolist())
            terms["perceptual"] = torch.stack([net(*pair).float().mean() for net in self.perceptual]).mean()
        if config.adversarial_weight:
            terms |= adversarial_losses(self.model.discriminator, decoded, x)
        return terms

    def _noised_and_denoised(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Latents (N, 4, H/8, W/8), half of them, drawn by lot, after noise and the reverse process."""
        assert self.denoiser is not None
        count = len(y)
        drawn = torch.rand(count, generator=generator) < 0.5
        t = torch.rand(count, generator=generator).to(self.device) * self.config.denoised_below
        noise = torch.randn(y.shape, generator=generator).to(self.device)
        sigma = self.denoiser.schedule.sigma_at(t)[:, None, None, None]
        with torch.no_grad():
            denoised = self.denoiser.denoise(y + sigma * noise, t, self.config.denoising_steps)
        shown = torch.where(drawn.to(self.device)[:, None, None, None], denoised, y)
        return y + (shown - y).detach()


def adversarial_losses(discriminator: nn.Module, decoded: Tensor, x: Tensor) -> dict[str, Tensor]:
    """Hinge losses: ``discriminator`` trains only the discriminator, ``adversarial`` only the decoder.

    The gradient of ``adversarial`` in ``decoded`` has the norm of an L1 loss's, whatever the discriminator's scale.
    """
    picture = decoded.detach()
    hinge = F.relu(1 - discriminator(x)).mean() + F.relu(1 + discriminator(picture)).mean()
    fixed = {name: p.detach() for name, p in discriminator.named_parameters()}
    picture.requires_grad_()
    score = torch.func.functional_call(discriminator, fixed, picture).float().mean()
    (gradient,) = torch.autograd.grad(-score, picture)
    gradient = gradient / (gradient.norm() * gradient.numel() ** 0.5).clamp_min(1e-12)
    pulled = (gradient * (decoded - picture.detach())).sum()
    return {"discriminator": hinge.float(), "adversarial": pulled - score.detach()}


def stage_ends(blocks: Blocks, lead: int) -> tuple[list[list[int]], int]:
    """Where each stage's blocks end in the ``layers`` of a half, and the number of layers.

    ``lead`` layers come before the blocks of each stage: 1 in ``EncoderTiny``, 2 in ``DecoderTiny``; one convolution
    ends both.
    """
    ends, position = [], 0
    for count in blocks:
        position += lead
        ends.append([position + i for i in range(1, count + 1)])
        position += count
    return ends, position + 1


def cuts(ours: Blocks, theirs: Blocks, lead: int) -> list[Cut]:
    """Pairs of layer indices (ours, the teacher's) up to which both should compute the same.

    Blocks are paired one by one in stages of equal depth, else at the stage's end; a stage without blocks of
    ours has no end of its own.
    """
    (our_ends, our_length), (their_ends, their_length) = (
        stage_ends(blocks, lead) for blocks in (ours, theirs)
    )
    pairs: list[Cut] = []
    for own, other in zip(our_ends, their_ends, strict=True):
        if len(own) == len(other):
            pairs += zip(own, other, strict=True)
        elif own and other:
            pairs.append((own[-1], other[-1]))
    return [*pairs, (our_length, their_length)]


def block_errors(ours: nn.Sequential, theirs: nn.Sequential, cuts: list[Cut], x: Tensor) -> Tensor:
    """Squared error of each of our segments on the teacher's features, (segments,); 1 for features of zeros.

    Each channel counts by its own mean square: the teacher has channels of small values that matter to what follows.
    """
    errors = []
    for (a, c), (b, d) in pairwise([(0, 0), *cuts]):
        with torch.no_grad():
            target = theirs[c:d](x)
        wanted = target.float()
        power = wanted.square().mean((0, 2, 3))
        error = (ours[a:b](x).float() - wanted).square().mean((0, 2, 3))
        errors.append((error / (power + FAINT * power.mean())).mean())
        x = target
    return torch.stack(errors)
