"""The frozen latent diffusion model.

``model`` runs it, ``layout`` reads a folder, ``sources`` finds the folder of a name, ``prompt`` gives the text
condition.
"""

from diffusion_codec.backbone.model import STRIDE, Backbone
from diffusion_codec.backbone.options import DEFAULT_RUN, Precision, RunOptions
from diffusion_codec.backbone.sources import embedded_folder

__all__ = ["DEFAULT_RUN", "STRIDE", "Backbone", "Precision", "RunOptions", "embedded_folder"]
