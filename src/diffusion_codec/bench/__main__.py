"""``python -m diffusion_codec.bench``: the bench of the codec."""

from diffusion_codec.bench.codec import app

if __name__ == "__main__":
    app(prog_name="python -m diffusion_codec.bench")
