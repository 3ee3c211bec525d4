"""A small real study: synthetic photographs, codecs that add noise, everything else as in earnest."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffusion_codec.datasets import from_files
from diffusion_codec.evaluation.codecs import Coded, Pixels
from diffusion_codec.user_study import design, stimuli
from diffusion_codec.user_study.design import Study

OURS, RIVAL = "ours", "rival"


@dataclass(frozen=True)
class NoisyCodec:
    """Adds noise that falls with the rate; its files are as long as was asked for."""

    name: str
    noise: float
    version: str = "1"
    settings: str = "none"
    has_rate: bool = True

    def run(self, pixels: Pixels, bpp: float) -> Coded:
        rng = np.random.default_rng(len(self.name))
        noisy = pixels + rng.normal(0, self.noise / bpp, pixels.shape)
        data = bytes(int(bpp * pixels.shape[0] * pixels.shape[1] / 8))
        return Coded(data, np.clip(noisy, 0, 255).astype(np.uint8), 0.0, 0.0)


def photographs(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        y, x = np.mgrid[0:64, 0:96]
        waves = [np.sin(x / (3 + number)) * 60, np.cos(y / (4 + number)) * 60, (x + y) % 40]
        path = folder / f"photo{number}.png"
        Image.fromarray((np.stack(waves, axis=-1) + 100).clip(0, 255).astype(np.uint8)).save(path)
        paths.append(path)
    return paths


def make_study(folder: Path, images: int = 3, **changes: Any) -> Study:
    """The study in `folder`: OURS at 0.2 against RIVAL at once and twice that rate, 6 trials a session."""
    dataset = from_files("waves", "made for a test", photographs(folder / "photographs", images))
    anchor, others = stimuli.conditions(OURS, [RIVAL], 0.2, [1, 2])
    options: dict[str, Any] = {
        "title": "A test",
        "crop": 80,
        "seed": 1,
        "trials": 6,
        "repeats": 1,
        "sentinels": 1,
        "ties": True,
        "chosen": [NoisyCodec(OURS, 2.0), NoisyCodec(RIVAL, 4.0)],
    }
    pairs = stimuli.pairs(anchor, others, every=False)
    study = stimuli.make(folder, dataset, images, pairs, **options | changes)
    design.save(study, folder)
    return study
