"""``python -m diffusion_codec`` is the command line ``diffusion-codec``."""

from diffusion_codec.cli import main

if __name__ == "__main__":
    main()
