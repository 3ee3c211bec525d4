"""Made tests/conformance/1.0 once: ``python -m tests.conformance.make FOLDER``.

Golden files are kept, not made again: a decoder that no longer reads them has broken the format. A new format version
gets a folder of its own.
"""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from diffusion_codec import bitstream, codec_weights
from diffusion_codec.backbone import Backbone
from diffusion_codec.bitstream import DfcFile, Header
from diffusion_codec.codec import Codec
from diffusion_codec.entropy.model import EntropyModel, SideInformation
from diffusion_codec.parameter_estimation import ParameterEstimation
from diffusion_codec.quantization import shared_dither
from tests.fuzz.mutations import with_right_sums
from tests.tiny import tiny_autoencoder, tiny_denoiser, write_tiny_backbone

STEPS = 3
RMS, PEAK = 0.1, 2


def integers(shape: torch.Size, reach: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-reach, reach + 1, shape, generator=generator)


WEIGHTS: dict[str, dict[str, Any]] = {
    "context": {},
    "hyperprior": {"hyper_channels": 2},
    "lattice": {"context": "lattice", "kernel": 7, "energy": 3},
}


def make_weights(path: Path, shape: dict[str, Any], dithered: bool) -> None:
    """An entropy model drawn from integers; P_phi, which no decoder runs, has zeros and its starting point."""
    estimation = ParameterEstimation()
    entropy = EntropyModel(width=8, hyper_features=4, **shape)
    with torch.no_grad():
        for name, parameter in estimation.named_parameters():
            if name.startswith("layers"):
                nn.init.zeros_(parameter)
        for seed, (name, parameter) in enumerate(entropy.named_parameters()):
            reach = 8192 if name.endswith("out.bias") else 512
            if name.endswith("logits"):
                continue
            parameter.copy_(integers(parameter.shape, reach, seed) / 4096)
    codec_weights.save(
        path,
        estimation,
        entropy,
        latent_space="stable-diffusion-1",
        variant="conformance",
        dithered=dithered,
    )


@torch.no_grad()
def make_backbone(folder: Path) -> None:
    """A random backbone whose pictures depend on every part: full contrast, and noise estimates of unit size."""
    write_tiny_backbone(folder)
    vae, unet = tiny_autoencoder(), tiny_denoiser()
    for name, parameter in vae.named_parameters():
        if parameter.ndim == 4:
            parameter.mul_(1.5 if ".conv." in name else 2.4)
    x = torch.from_numpy(picture(96, 96)).permute(2, 0, 1)[None].float() / 127.5 - 1
    first, y = vae.encoder.layers[-1], vae.encode(x).latents
    first.weight.div_(y.std((0, 2, 3))[:, None, None, None])
    first.bias.div_(y.std((0, 2, 3)))
    first.bias.sub_(vae.encode(x).latents.mean((0, 2, 3)))
    y = vae.encode(x).latents
    eps = unet(y, torch.tensor([137.0]), torch.zeros(1, 1, 1)).sample
    unet.conv_out.weight.div_(eps.std())
    last = vae.decoder.layers[-1]
    x = vae.decode(y).sample
    last.weight.mul_(0.5 / x.std())
    last.bias.sub_(vae.decode(y).sample.mean((0, 2, 3)))
    vae.half().save_pretrained(folder / "vae")
    unet.half().save_pretrained(folder / "unet")
    config = json.loads((folder / "vae" / "config.json").read_text())
    del config["block_out_channels"]  # diffusers writes it and then complains of it
    (folder / "vae" / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file({"embedding": torch.zeros(1, 1, 1)}, folder / "empty_prompt.safetensors")


def picture(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack([3 * x + y, 255 - 2 * y - x, (x // 8 + y // 8) % 2 * 160], -1)
    noise = np.random.default_rng(width * 1000 + height).integers(-20, 21, ramp.shape)
    return np.clip(ramp + noise, 0, 255).astype(np.uint8)


def crafted(codec: Codec, header: Header, spread: int, places: dict[tuple[int, int, int], int]) -> bytes:
    """A file of latents drawn from integers, with chosen values at some places."""
    size = (-(-header.height // 8), -(-header.width // 8))
    z = integers(torch.Size((4, *size)), spread, header.width)
    for place, value in places.items():
        z[place] = value
    side = SideInformation(torch.tensor([header.alpha]), torch.tensor([header.timestep]))
    dither = torch.from_numpy(shared_dither(header.dither_seed or 0, tuple(z.shape)))
    streams = codec.weights.encode(z, side, dither * (header.dither_seed is not None))
    return bitstream.write(DfcFile(header, streams.hyper, streams.latent))


def good_files(context: Codec, hyper: Codec, lattice: Codec) -> dict[str, tuple[str, Codec, bytes]]:
    def header(codec: Codec, width: int, height: int, **fields: Any) -> Header:
        usual = {"timestep": 137, "alpha": (16, -9, 3, 40), "beta": (0, -5, 8, 127)}
        return Header(width, height, codec.weights.fingerprint, **usual | fields)

    lowest = header(context, 24, 16, timestep=0, alpha=(-128,) * 4, beta=(-128,) * 4)
    highest = header(context, 16, 24, timestep=999, alpha=(127,) * 4, beta=(127,) * 4)
    minor = bytearray(crafted(context, header(context, 32, 32), 3, {}))
    minor[4], minor[5] = 0x1F, 0xD0
    return {
        "photo": ("64 x 48, as compressed", context, context.compress(picture(64, 48), 60).data),
        "one-pixel": ("1 x 1, the smallest", context, context.compress(picture(1, 1), 60).data),
        "odd-size": (
            "65 x 17: sides that are no multiples of 8",
            context,
            context.compress(picture(65, 17), 90).data,
        ),
        "tall": ("1 x 300", context, context.compress(picture(1, 300), 90).data),
        "grey": ("grey", context, context.compress(picture(40, 40), 70, grayscale=True).data),
        "dither": ("dithered", context, context.compress(picture(48, 40), 70, dither_seed=4321).data),
        "hyper": ("with a hyper stream", hyper, hyper.compress(picture(72, 56), 80).data),
        "lattice": (
            "four passes a channel, energies, means moved by the dither",
            lattice,
            lattice.compress(picture(80, 56), 80).data,
        ),
        "lattice-side-information": (
            "the same with side information by channel and another seed",
            lattice,
            crafted(lattice, header(lattice, 57, 65, dither_seed=9), 9, {(1, 2, 3): -4000}),
        ),
        "side-information": (
            "side information by channel",
            context,
            crafted(context, header(context, 66, 48), 9, {}),
        ),
        "hyper-dither": (
            "hyper stream, dither and grey at once",
            hyper,
            crafted(hyper, header(hyper, 40, 72, dither_seed=65535, grayscale=True), 9, {}),
        ),
        "escapes": (
            "values beyond the tables",
            context,
            crafted(
                context, header(context, 56, 40), 9, {(2, 3, 4): 5000, (3, 0, 0): -16384, (0, 1, 1): 16383}
            ),
        ),
        "lowest": ("the lowest side information", context, crafted(context, lowest, 1, {})),
        "highest": ("the highest side information", context, crafted(context, highest, 900, {})),
        "later-minor": ("version 1.15 with unknown informative flags", context, reseal(bytes(minor))),
    }


def reseal(data: bytes) -> bytes:
    """The same file with the check sums that fit it."""
    return with_right_sums(data)


def bad_files(context: Codec, photo: bytes) -> dict[str, tuple[str, str, bytes]]:
    file = bitstream.read(photo)
    end = len(bitstream.write(DfcFile(file.header, b"", b""))) - 4

    def header_with(position: int, value: bytes) -> bytes:
        head = photo[:position] + value + photo[position + len(value) : end]
        return reseal(head + b"..\0\1\0....")

    wide = dataclasses.replace(file.header, width=65535, height=65535)
    foreign = dataclasses.replace(file.header, weights_fingerprint=b"\0\0\0\0")
    return {
        "cut": ("the last byte is missing", "TruncatedFileError", photo[:-1]),
        "header-only": ("the streams are missing", "TruncatedFileError", photo[: end + 2]),
        "flipped-header": ("a bit of the timestep", "CorruptFileError", flip(photo, end - 10)),
        "flipped-stream": ("a bit of the latent stream", "CorruptFileError", flip(photo, len(photo) - 8)),
        "flipped-length": (
            "a bit of the latent stream's length",
            "TruncatedFileError",
            flip(photo, end + 3, 0x40),
        ),
        "trailing": ("a byte follows the end", "CorruptFileError", photo + b"\0"),
        "text-mode": ("transferred in text mode", "NotADfcFileError", photo.replace(b"\n", b"\r\n", 1)),
        "major-2": ("major version 2", "UnsupportedVersionError", header_with(4, b"\x20")),
        "required-flag": ("an unknown required flag", "UnsupportedFeatureError", header_with(5, b"\x18")),
        "timestep-1000": ("a timestep beyond 999", "CorruptFileError", header_with(end - 10, b"\xe8\x03")),
        "zero-width": ("no pixels", "CorruptFileError", header_with(6, b"\0")),
        "huge": ("65535 x 65535", "LimitExceededError", bitstream.write(DfcFile(wide, b"", b"abcdefgh"))),
        "foreign": ("other codec weights", "BadInputError", bitstream.write(DfcFile(foreign, b"", b"abc"))),
        "hyper-unwanted": (
            "a hyper stream, but weights without a hyperprior",
            "BadInputError",
            bitstream.write(DfcFile(file.header, b"abc", file.latent)),
        ),
        "empty-stream": (
            "a header closed with two zero bytes: no check sum covers the whole",
            "CorruptFileError",
            bitstream.write(DfcFile(file.header, b"", b"")),
        ),
        "no-symbols": (
            "a latent stream that no encoder writes",
            "BadInputError",
            bitstream.write(DfcFile(file.header, b"", b"\xff" * 40)),
        ),
    }


def flip(data: bytes, position: int, bit: int = 1) -> bytes:
    changed = bytearray(data)
    changed[position] ^= bit
    return bytes(changed)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    make_backbone(folder / "backbone")
    codecs = {}
    for name, shape in WEIGHTS.items():
        make_weights(folder / "weights" / f"{name}.safetensors", shape, dithered=name == "lattice")
        weights = codec_weights.load(folder / "weights" / f"{name}.safetensors")
        codecs[name] = Codec(Backbone.from_pretrained(folder / "backbone"), weights)
    names = {id(codec): f"weights/{name}.safetensors" for name, codec in codecs.items()}
    files, refused = [], []
    for kind in ("good", "bad"):
        (folder / kind).mkdir()
    good = good_files(*codecs.values())
    for name, (about, codec, data) in good.items():
        (folder / "good" / f"{name}.dfc").write_bytes(data)
        result, file = codec.decompress(data, STEPS), bitstream.read(data)
        image = Image.fromarray(result.pixels)
        (image.convert("L") if result.grayscale else image).save(
            folder / "good" / f"{name}.png", optimize=True
        )
        files.append(
            {
                "file": f"good/{name}.dfc",
                "sha256": sha256(data),
                "about": about,
                "weights": names[id(codec)],
                "header": bitstream.header_fields(file.header),
                "ledger": bitstream.ledger(file),
                "symbols": [4, -(-file.header.height // 8), -(-file.header.width // 8)],
                "symbols_sha256": result.symbols_sha256,
                "picture": f"good/{name}.png",
            }
        )
    for name, (about, error, data) in bad_files(codecs["context"], good["photo"][2]).items():
        (folder / "bad" / f"{name}.dfc").write_bytes(data)
        entry = {"file": f"bad/{name}.dfc", "sha256": sha256(data), "about": about, "error": error}
        refused.append(entry | {"weights": "weights/context.safetensors"})
    manifest = {
        "schema": 1,
        "format_version": "1.0",
        "backbone": "backbone",
        "steps": STEPS,
        "tolerance": {"rms": RMS, "peak": PEAK},
        "files": files,
        "refused": refused,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
