"""An executable replication of *Lossy Image Compression with Foundation Diffusion Models*."""

__version__ = "0.1.0"
