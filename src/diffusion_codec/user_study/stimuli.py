"""Makes the pictures of a study: real files of whole photographs, decoded, cropped and kept without loss."""

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from diffusion_codec import baselines, datasets, fetch
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.evaluation import codecs as rate_codecs
from diffusion_codec.evaluation.codecs import Pixels, RateCodec
from diffusion_codec.files import write_atomically
from diffusion_codec.user_study.design import (
    ORIGINAL,
    SENTINEL,
    STIMULI,
    Condition,
    Stimulus,
    Study,
    check_session,
)

SENTINEL_CODEC, SENTINEL_QUALITY = "jpeg", 2
Progress = Callable[[str], None]


def conditions(
    anchor: str, rivals: Sequence[str], bitrate: float, ratios: Sequence[float]
) -> tuple[Condition, tuple[Condition, ...]]:
    """The codec under test at one rate, and its rivals at multiples of that rate."""
    if anchor in rivals or len(set(rivals)) < len(rivals) or not rivals:
        raise BadInputError(
            f"a study compares {anchor} with other codecs, each named once; got {list(rivals)}"
        )
    asked = [Condition(codec=name, target_bpp=round(bitrate * n, 6)) for name in rivals for n in ratios]
    return Condition(codec=anchor, target_bpp=bitrate), tuple(asked)


def pairs(
    anchor: Condition, others: Sequence[Condition], every: bool
) -> tuple[tuple[Condition, Condition], ...]:
    """The codec under test against each other condition, or `every` condition against every other one."""
    if not every:
        return tuple((anchor, other) for other in others)
    all_ = (anchor, *others)
    return tuple((all_[i], all_[j]) for i in range(len(all_)) for j in range(i + 1, len(all_)))


def choose_dataset(name: str) -> ImageDataset:
    """A data set by name; `auto` is Kodak where a copy is at hand, else the embedded sample photographs."""
    if name != "auto":
        return datasets.load(name)
    try:
        return datasets.load("kodak" if fetch.store().find("kodak") else "sample")
    except MissingDataError:
        return datasets.load("sample")


def make(
    folder: Path,
    dataset: ImageDataset,
    images: int,
    compared: Sequence[tuple[Condition, Condition]],
    *,
    title: str,
    crop: int,
    seed: int,
    trials: int,
    repeats: int,
    sentinels: int,
    ties: bool,
    device: str = "cpu",
    progress: Progress = lambda text: None,
    chosen: Sequence[RateCodec] | None = None,
) -> Study:
    """Code, decode and write every picture, and describe the study (not yet saved).

    `images` photographs are taken evenly from the data set; `crop` is the longer side shown at most. Cells are cut
    to `trials` where a session could not show so many. Raises BadInputError where a study cannot be made of this.
    """
    names = tuple(dict.fromkeys(c.codec for pair in compared for c in pair))
    loaded = {codec.name: codec for codec in (rate_codecs.get(names, device) if chosen is None else chosen)}
    wanted = tuple(dict.fromkeys(c for pair in compared for c in pair))
    picked = [dataset[int(k)] for k in np.linspace(0, len(dataset) - 1, min(images, len(dataset))).round()]
    cells = len(picked) * len(compared)
    main = min(trials - repeats - sentinels, cells)
    check_session(main + repeats + sentinels, repeats, sentinels, cells)  # before the expensive part
    (folder / STIMULI).mkdir(parents=True, exist_ok=True)
    found: list[Stimulus] = []
    for item in picked:
        pixels = item.pixels()
        progress(f"{item.id}: original")
        found.append(_keep(folder, item.id, Condition(codec=ORIGINAL), pixels, None, pixels.shape, crop))
        if sentinels:
            found.append(_sentinel(folder, item.id, pixels, crop))
        for condition in wanted:
            progress(f"{item.id}: {condition.label}")
            coded = loaded[condition.codec].run(pixels, condition.target_bpp or np.inf)
            made = None if coded.data is None else len(coded.data)
            found.append(_keep(folder, item.id, condition, coded.decoded, made, pixels.shape, crop))
    return Study(
        title=title,
        dataset=dataset.name,
        origin=dataset.origin,
        dataset_sha256=dataset.sha256,
        seed=seed,
        trials=main + repeats + sentinels,
        repeats=repeats,
        sentinels=sentinels,
        ties=ties,
        pairs=tuple(compared),
        stimuli=tuple(found),
        codecs={name: f"{codec.version}; {codec.settings}" for name, codec in loaded.items()},
    )


def _sentinel(folder: Path, image: str, pixels: Pixels, crop: int) -> Stimulus:
    codec = baselines.get(SENTINEL_CODEC)
    data = codec.encode(pixels, SENTINEL_QUALITY)
    condition = Condition(codec=SENTINEL)
    return _keep(folder, image, condition, codec.decode(data), len(data), pixels.shape, crop)


def _keep(
    folder: Path,
    image: str,
    condition: Condition,
    pixels: Pixels,
    size: int | None,
    whole: tuple[int, ...],
    crop: int,
) -> Stimulus:
    buffer = io.BytesIO()
    shown = _middle(pixels, crop)
    Image.fromarray(shown).save(buffer, "WEBP", lossless=True, quality=60, method=4)
    name = hashlib.sha256(buffer.getvalue()).hexdigest()[:32] + ".webp"
    write_atomically(folder / STIMULI / name, buffer.getvalue(), force=True)
    return Stimulus(
        file=name,
        image=image,
        condition=condition,
        width=shown.shape[1],
        height=shown.shape[0],
        bytes=size,
        bpp=None if size is None else 8 * size / (whole[0] * whole[1]),
    )


def _middle(pixels: Pixels, crop: int) -> Pixels:
    height, width = (min(side, crop) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])
