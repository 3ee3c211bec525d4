"""What the codec's own networks learned: predictions of P_phi, real rates, and bits against an ideal."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from diffusion_codec import quantization
from diffusion_codec.backbone import Backbone
from diffusion_codec.codec import Codec, lambda_of
from diffusion_codec.codec_weights import CodecWeights
from diffusion_codec.entropy.model import CHANNELS, SideInformation, gaussian_bits
from diffusion_codec.evaluation.noise import entropy_bits, whole_cells
from diffusion_codec.parameter_estimation import ParameterEstimation


@torch.inference_mode()
def latents_of(backbone: Backbone, pictures: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Picture name -> y, (1, 4, h, w); pictures uint8 (H, W, 3)."""
    return {name: backbone.encode(whole_cells(pixels)) for name, pixels in pictures.items()}


@torch.inference_mode()
def predictions(
    p_phi: ParameterEstimation, latents: Mapping[str, Tensor], lambdas: Iterable[float]
) -> pd.DataFrame:
    """gamma and t for each picture and lambda.

    Columns: image, lambda_, alpha_0..3, beta_0..3, step (geometric mean of 1 / alpha), t, matched_t (of that step).
    """
    rows = []
    for lambda_ in lambdas:
        for name, y in latents.items():
            alpha, beta, t = p_phi(y, torch.tensor([float(lambda_)]))
            step = torch.exp2(-alpha.log2().mean())
            row: dict[str, object] = {"image": name, "lambda_": float(lambda_)}
            row |= {f"alpha_{c}": float(alpha[0, c]) for c in range(CHANNELS)}
            row |= {f"beta_{c}": float(beta[0, c]) for c in range(CHANNELS)}
            row |= {
                "step": float(step),
                "t": float(t),
                "matched_t": float(quantization.matched_timestep(step)),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def rates(codec: Codec, pictures: Mapping[str, np.ndarray], qualities: Sequence[float]) -> pd.DataFrame:
    """Size of real files for each picture and quality; columns image, quality, lambda_, bytes, bpp."""
    rows = []
    for name, pixels in pictures.items():
        for quality in qualities:
            size = len(codec.compress(pixels, quality).data)
            bpp = 8 * size / (pixels.shape[0] * pixels.shape[1])
            rows.append(
                {"image": name, "quality": quality, "lambda_": lambda_of(quality), "bytes": size, "bpp": bpp}
            )
    return pd.DataFrame(rows)


def rising(table: pd.DataFrame) -> pd.Series:
    """For each image of :func:`rates`: whether its files grow with every step of lambda."""
    ordered = table.sort_values("lambda_").groupby("image", sort=False)["bytes"]
    return ordered.apply(lambda sizes: bool(sizes.diff().iloc[1:].gt(0).all()))


@torch.inference_mode()
def bits_by_channel(
    weights: CodecWeights, latents: Mapping[str, Tensor], lambdas: Iterable[float]
) -> pd.DataFrame:
    """Bits a symbol of the entropy model against the zeroth-order entropy, for each picture, lambda and channel.

    Columns: image, lambda_, channel, model, ideal, stream (the whole latent stream's bits a symbol, from real bytes).
    The ideal knows the histogram of this very channel, and is not told what that knowledge would cost.
    """
    rows = []
    for lambda_ in lambdas:
        for name, y in latents.items():
            z_hat, side = quantised(weights.parameter_estimation, y, float(lambda_))
            spent = _channel_bits(weights, z_hat, side) / z_hat[0].numel()
            stream = 8 * len(weights.latent_coder.encode(z_hat, side).latent) / z_hat.numel()
            for channel in range(CHANNELS):
                row = {
                    "image": name,
                    "lambda_": float(lambda_),
                    "channel": channel,
                    "model": float(spent[channel]),
                }
                rows.append(row | {"ideal": entropy_bits(z_hat[channel]), "stream": stream})
    return pd.DataFrame(rows)


def quantised(p_phi: ParameterEstimation, y: Tensor, lambda_: float) -> tuple[Tensor, SideInformation]:
    """z_hat (4, h, w) and the side information as a file would store it."""
    alpha, beta, t = p_phi(y, torch.tensor([lambda_]))
    index, offset = quantization.alpha_to_index(alpha), quantization.beta_to_index(beta)
    z = quantization.affine(y, quantization.alpha_from_index(index), quantization.beta_from_index(offset))
    return z[0].round().long(), SideInformation(index, t.round())


def _channel_bits(weights: CodecWeights, z_hat: Tensor, side: SideInformation) -> Tensor:
    """Information content of each channel under the entropy model, in bits, (4,)."""
    model = weights.latent_coder.model
    side = SideInformation(side.alpha_index.double(), side.timestep.double())
    z, features = z_hat.double()[None], None
    if model.hyperprior is not None:
        h_hat = model.hyperprior.analyse(model.unit(z, side)).round()
        features = model.hyperprior.synthesise(h_hat, (z.shape[-2], z.shape[-1]))
    bits = torch.zeros(CHANNELS, dtype=torch.float64)
    for index, mean, log_scale in model.each_pass(z, side, features):
        channel, mask = model.channel_and_mask(index, z.shape[-2], z.shape[-1])
        bits[channel] += gaussian_bits(z[0, channel][mask], mean[0][mask], log_scale[0][mask]).sum()
    return bits
