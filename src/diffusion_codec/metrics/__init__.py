"""Image quality metrics, each with its protocol: name, network, weights, direction."""

from diffusion_codec.metrics.perceptual import PerceptualLoss, perceptual_loss

__all__ = ["PerceptualLoss", "perceptual_loss"]
