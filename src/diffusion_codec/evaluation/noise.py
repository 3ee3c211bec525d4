"""How much a quantisation error is like diffusion noise: moments, spectrum, independence, and a denoiser's answer.

Everything works on the scale of the latent y itself. Tables are pandas frames with one row a (step, kind).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from diffusion_codec import datasets, quantization
from diffusion_codec.backbone import STRIDE, Backbone
from diffusion_codec.datasets import ImageDataset
from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation.findings import number
from diffusion_codec.metrics import perceptual_loss
from diffusion_codec.pixels import to_signed
from diffusion_codec.schedule import STABLE_DIFFUSION, NoiseSchedule

KINDS = ("rounding", "dithered", "gaussian")
"""Rounding; universal quantisation with shared dither; Gaussian noise of variance step^2 / 12."""

DITHERS = tuple(i / 8 for i in range(8))
"""Of a step, evenly spread: what stands for all dithers where bits are counted."""

LADDER = tuple(np.geomspace(0.125, 6, 8).round(3).tolist())
"""Steps at which errors are looked at, from far below the latents' spread to far above."""

SPECTRUM_BINS = 10
INFORMATION_BINS = 16
CRITERIA = {"variance_ratio": 0.05, "correlation_rms": 0.05, "flatness": 0.05}
"""What counts as diffusion-like to second order: the largest distance from 1, 0 and 1."""

TYPE_DRAWS = 8
"""Draws of noise and of dither that are compared."""

INDEPENDENT_BELOW = 0.02
"""Bits about the signal below which an error counts as independent of it."""


def photographs(name: str, count: int | None) -> ImageDataset:
    """The data set ``name``; the embedded sample, under its own name and announced, where it cannot be had."""
    found, note = datasets.load_or_sample(name, count)
    if note:
        print(f"Photographs of '{found.name}' {note}")
    return found


def whole_cells(pixels: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) -> float (1, 3, H', W') in -1..1, cut to multiples of 8."""
    height, width = (side - side % STRIDE for side in pixels.shape[:2])
    return to_signed(pixels[:height, :width])


def centre_crops(photos: Sequence[np.ndarray], size: int = 256) -> Tensor:
    """The centres of uint8 photographs, (N, 3, size, size) in -1..1.

    Raises:
        BadInputError: a photograph is smaller than ``size`` a side.
    """
    crops = []
    for pixels in photos:
        top, left = ((side - size) // 2 for side in pixels.shape[:2])
        if min(top, left) < 0:
            shape = f"{pixels.shape[1]} x {pixels.shape[0]}"
            raise BadInputError(f"crops of {size} pixels a side do not fit a photograph of {shape}")
        crops.append(whole_cells(pixels[top : top + size, left : left + size]))
    return torch.cat(crops)


def disturb(y: Tensor, step: float, kind: str, seed: int = 0) -> Tensor:
    """y_hat: the latent after quantisation with ``step``, or with Gaussian noise of the same variance.

    Args:
        y: any shape.
        kind: one of KINDS.
    """
    if kind == "rounding":
        return step * (y / step).round()
    if kind == "dithered":
        d = torch.from_numpy(quantization.shared_dither(seed, tuple(y.shape)))
        return step * ((y / step + d).round() - d)
    if kind == "gaussian":
        draw = np.random.Generator(np.random.Philox(seed)).standard_normal(tuple(y.shape), np.float32)
        return y + step / 12**0.5 * torch.from_numpy(draw)
    raise BadInputError(f"kind {kind!r} is unknown; choose from {', '.join(KINDS)}")


def entropy_bits(symbols: Tensor) -> float:
    """Zeroth-order entropy in bits a symbol: the rate of the best code that looks at one symbol at a time."""
    _, counts = torch.unique(symbols, return_counts=True)
    return float(stats.entropy(counts.numpy(), base=2))


def gaussian_entropy_bits(step: float) -> float:
    """Entropy of round(N(0, 1) / step), bits a symbol."""
    edges = step * (np.arange(-int(12 / step) - 2, int(12 / step) + 2) + 0.5)
    return float(stats.entropy(np.diff(stats.norm.cdf(edges)), base=2))


def matched_steps(
    timesteps: Sequence[int], latents: Sequence[Tensor], schedule: NoiseSchedule = STABLE_DIFFUSION
) -> pd.DataFrame:
    """For each t: alpha_bar, sigma_t, Delta_t, the deviation of rounding errors with that step over sigma_t, and bits.

    Dithered bits are those of a coder that knows the dither: the mean over :data:`DITHERS` of the entropies.

    Args:
        latents: (4, h, w) each.
    """
    unit = torch.from_numpy(np.random.default_rng(0).standard_normal(200_000))
    rows = []
    for t in timesteps:
        sigma = float(schedule.sigma[t])
        step = float(quantization.matched_step(torch.tensor(float(t)), schedule))
        errors = torch.cat([(disturb(y, step, "rounding") - y).flatten() for y in latents])
        channels = [c / step for y in latents for c in y]
        real_bits = np.mean([entropy_bits(c.round()) for c in channels])
        dithered_bits = np.mean([entropy_bits((c + d).round()) for c in channels for d in DITHERS])
        rows.append(
            {
                "t": t,
                "alpha_bar": float(schedule.alpha_bar[t]),
                "sigma_t": sigma,
                "step": step,
                "unit_ratio": float((disturb(unit, step, "rounding") - unit).std()) / sigma,
                "latent_ratio": float(errors.square().mean().sqrt()) / sigma,
                "unit_bits": gaussian_entropy_bits(step),
                "unit_bpp": gaussian_entropy_bits(step) * 4 / STRIDE**2,
                "latent_bpp": real_bits * 4 / STRIDE**2,
                "dithered_bpp": dithered_bits * 4 / STRIDE**2,
            }
        )
    return pd.DataFrame(rows)


def radial_spectrum(error: Tensor, bins: int = SPECTRUM_BINS) -> np.ndarray:
    """Power at each spatial frequency (0 to 1/2 cycle a position) of (4, h, w), mean 1 for white unit noise."""
    power = torch.fft.fft2(error.double()).abs().square().mean(0) / (error.shape[-1] * error.shape[-2])
    rows, columns = (torch.fft.fftfreq(side) for side in error.shape[-2:])
    radius = (rows[:, None].square() + columns[None].square()).sqrt()
    index = (radius * 2 * bins).long()
    inside = (index < bins) & (radius > 0)
    total = torch.bincount(index[inside], power[inside], minlength=bins)
    mean: np.ndarray = (total / torch.bincount(index[inside], minlength=bins)).numpy()
    return mean


def mutual_information(a: np.ndarray, b: np.ndarray, bins: int = INFORMATION_BINS) -> float:
    """Bits that a tells about b, each cut into ``bins`` classes of equal count (Miller-Madow; not below 0)."""
    classes = [_classes(v, bins) for v in (a, b)]
    counts = np.bincount(classes[0] * bins + classes[1], minlength=bins**2)
    joint = stats.entropy(counts, base=2)
    marginals = [stats.entropy(np.bincount(c, minlength=bins), base=2) for c in classes]
    bias = ((counts > 0).sum() - 2 * bins + 1) / (2 * len(a) * np.log(2))
    return max(float(sum(marginals) - joint - bias), 0.0)


def _classes(values: np.ndarray, bins: int) -> np.ndarray:
    rank = np.empty(len(values), np.int64)
    rank[np.argsort(values, kind="stable")] = np.arange(len(values))
    return rank * bins // len(values)


def error_statistics(
    latents: Sequence[Tensor], steps: Sequence[float], kinds: Sequence[str] = KINDS
) -> pd.DataFrame:
    """Moments, spectrum and dependence of y_hat - y, one row a (step, kind).

    Columns: ``variance_ratio`` to step^2 / 12, ``bias`` and ``ks`` (distance to the uniform law) of the error in steps,
    ``kurtosis`` (excess; uniform -1.2, Gaussian 0), ``correlation`` with y (mean and rms), ``information`` about y
    in bits, ``flatness`` of the spectrum (1 is white), ``spectrum_0``... (power over step^2 / 12). Correlation and
    information are taken within each channel of each image, then averaged.
    """
    rows = []
    for step in steps:
        for kind in kinds:
            errors = [disturb(y, step, kind, seed) - y for seed, y in enumerate(latents)]
            rows.append({"step": step, "kind": kind} | _statistics(latents, errors, step))
    return pd.DataFrame(rows)


def _statistics(latents: Sequence[Tensor], errors: Sequence[Tensor], step: float) -> dict[str, float]:
    pairs = [(y.flatten().numpy(), e.flatten().numpy()) for ys, es in zip(latents, errors, strict=True)
             for y, e in zip(ys, es, strict=True)]  # fmt: skip
    pooled = np.concatenate([e for _, e in pairs]) / step
    expected = step**2 / 12
    correlations = [np.corrcoef(y, e)[0, 1] for y, e in pairs]
    spectrum = np.mean([radial_spectrum(e) for e in errors], 0) / expected
    row: dict[str, float] = {
        "variance_ratio": float(pooled.var() * 12),
        "bias": float(pooled.mean()),
        "kurtosis": float(stats.kurtosis(pooled)),
        "ks": float(stats.kstest(pooled, "uniform", args=(-0.5, 1)).statistic),
        "correlation": float(np.mean(correlations)),
        "correlation_rms": float(np.sqrt(np.mean(np.square(correlations)))),
        "information": float(np.mean([mutual_information(y, e) for y, e in pairs])),
        "flatness": float(stats.gmean(spectrum) / spectrum.mean()),
    }
    return row | {f"spectrum_{i}": float(v) for i, v in enumerate(spectrum)}


def is_like_noise(row: Any) -> bool:
    """Whether a row of :func:`error_statistics` meets every criterion of CRITERIA."""
    ideal = {"variance_ratio": 1.0, "correlation_rms": 0.0, "flatness": 1.0}
    return all(abs(row[name] - ideal[name]) <= limit for name, limit in CRITERIA.items())


def verdict(statistics: pd.DataFrame, kind: str) -> dict[str, Any]:
    """Claim C9 for one kind of error.

    ``holds_up_to`` is the largest step up to which the criteria hold at every step measured (None: not even at
    the first); ``independent_up_to`` the same for independence. *replicated*: both at all steps; *partly*: the
    criteria hold at the finest at least.
    """
    rows = statistics[statistics["kind"] == kind].sort_values("step")
    held = rows.apply(is_like_noise, axis=1).to_numpy(bool)
    independent = rows["information"].to_numpy() <= INDEPENDENT_BELOW
    outcome = "partly" if held[0] else "not replicated"
    if held.all() and independent.all():
        outcome = "replicated"
    steps = rows["step"].to_numpy()
    limits = {"holds_up_to": _up_to(steps, held), "independent_up_to": _up_to(steps, independent)}
    return {"kind": kind, "outcome": outcome} | limits


def strongest_band(statistics: pd.DataFrame, kind: str, step: float | None) -> float:
    """The largest power among the bands of frequency, over step^2 / 12; at the finest step for None."""
    rows = statistics[statistics["kind"] == kind]
    row = rows[rows["step"] == (rows["step"].min() if step is None else step)].iloc[0]
    return float(row[[f"spectrum_{i}" for i in range(SPECTRUM_BINS)]].max())


def _up_to(steps: np.ndarray, held: np.ndarray) -> float | None:
    count = len(held) if held.all() else int(held.argmin())
    return float(steps[count - 1]) if count else None


def signal_to_noise(y: Tensor, y_hat: Tensor) -> float:
    """10 log10(var y / mean squared error), dB, over everything given."""
    return float(10 * torch.log10(y.var() / (y_hat - y).square().mean()))


@torch.inference_mode()
def scaling_check(backbone: Backbone, y: Tensor, timesteps: Sequence[int]) -> pd.DataFrame:
    """One-step denoising of Gaussian noise with the input scaled by sqrt(alpha_bar), and without; dB."""
    rows = []
    for t in timesteps:
        sigma = float(backbone.schedule.sigma[t])
        y_hat = disturb(y, 12**0.5 * sigma, "gaussian")
        when = torch.full((len(y),), float(t))
        right = y_hat - sigma * backbone.epsilon(y_hat, when)
        # epsilon() multiplies by sqrt(alpha_bar); dividing first feeds the network y_hat itself
        wrong = y_hat - sigma * backbone.epsilon(y_hat * (1 + sigma**2) ** 0.5, when)
        values = {
            n: signal_to_noise(y, v) for n, v in (("noisy", y_hat), ("scaled", right), ("unscaled", wrong))
        }
        rows.append({"t": t} | values)
    return pd.DataFrame(rows)


@torch.inference_mode()
def declared_noise(
    backbone: Backbone, x: Tensor, y: Tensor, steps: Sequence[float], ratios: Sequence[float]
) -> pd.DataFrame:
    """One-step denoising at the matched noise level times each of ``ratios``; latent SNR, and LPIPS after decoding.

    Args:
        x: (N, 3, H, W) crops; y: their latents. ``ratio`` 0 is no denoising.

    Returns:
        Columns step, kind, ratio, t, latent_snr (dB), lpips (AlexNet; for rounding only, else missing).
    """
    distance = perceptual_loss("alex")
    rows = []
    for step in steps:
        for kind in KINDS:
            y_hat = disturb(y, step, kind)
            for ratio in (0.0, *ratios):
                y_0, t = _denoised(backbone, y_hat, ratio * step / 12**0.5)
                snr = signal_to_noise(y, y_0)
                lpips = None
                if kind == "rounding":
                    lpips = float(distance(x, backbone.decode(y_0).clamp(-1, 1)).mean())
                rows.append(
                    {"step": step, "kind": kind, "ratio": ratio, "t": t, "latent_snr": snr, "lpips": lpips}
                )
    return pd.DataFrame(rows)


def type_cost(backbone: Backbone, y: Tensor, steps: Sequence[float], draws: int = TYPE_DRAWS) -> pd.DataFrame:
    """What Gaussian noise leaves to one-step denoising at the formula's level over a dithered error of equal variance.

    Columns: step, cost (latent SNR after Gaussian noise less that after dither, dB, mean over ``draws`` of both), error
    (standard error of that mean).
    """
    rows = []
    for step in steps:
        snr = {
            kind: np.array(
                [
                    signal_to_noise(y, _denoised(backbone, disturb(y, step, kind, seed), step / 12**0.5)[0])
                    for seed in range(draws)
                ]
            )
            for kind in ("gaussian", "dithered")
        }
        cost = snr["gaussian"] - snr["dithered"]
        rows.append({"step": step, "cost": cost.mean(), "error": cost.std(ddof=1) / draws**0.5})
    return pd.DataFrame(rows)


def type_sentence(costs: pd.DataFrame, draws: int = TYPE_DRAWS) -> str:
    """At which steps of :func:`type_cost` the two kinds of noise can be told apart, by three standard errors."""
    sure = costs[costs["cost"].abs() > 3 * costs["error"]]
    if sure.empty:
        return (
            f"{draws} draws of each tell no difference: none is larger than {costs['cost'].abs().max():.2f} dB, with "
            f"standard errors of up to {costs['error'].max():.2f} dB"
        )
    told = ", ".join(
        f"{number(cost, '+.2f')} dB at Δ = {step:g}"
        for step, cost in zip(sure["step"], sure["cost"], strict=True)
    )
    return f"after Gaussian noise, less after dither, beyond three standard errors of {draws} draws: {told}"


def _denoised(backbone: Backbone, y_hat: Tensor, sigma: float) -> tuple[Tensor, float]:
    if sigma == 0:
        return y_hat, 0.0
    t = backbone.schedule.timestep_at(torch.tensor(sigma))
    return backbone.denoise(y_hat, t.expand(len(y_hat)), steps=1), float(t)


def optima(
    sweep: pd.DataFrame, statistics: pd.DataFrame, schedule: NoiseSchedule = STABLE_DIFFUSION
) -> pd.DataFrame:
    """The best declared noise level of each step beside the error's measured one, both over the formula's.

    Columns: step, kind, measured (deviation / (step / sqrt 12)), best_snr and best_lpips (ratios, by a parabola
    through the best point and its neighbours), t_formula, t_snr, t_lpips.
    """
    rows = []
    for (step, kind), group in sweep[sweep["ratio"] > 0].groupby(["step", "kind"], sort=False):
        known = statistics[(statistics["step"] == step) & (statistics["kind"] == kind)]
        best_snr = _peak(group["ratio"], group["latent_snr"])
        best_lpips = None if group["lpips"].isna().any() else _peak(group["ratio"], -group["lpips"])
        matched = float(step) / 12**0.5
        row = {"step": step, "kind": kind, "measured": float(known["variance_ratio"].iloc[0]) ** 0.5}
        row |= {"best_snr": best_snr, "best_lpips": best_lpips, "t_formula": _timestep(schedule, matched)}
        row |= {"t_snr": _timestep(schedule, best_snr * matched)}
        row |= {"t_lpips": None if best_lpips is None else _timestep(schedule, best_lpips * matched)}
        rows.append(row)
    return pd.DataFrame(rows)


def _timestep(schedule: NoiseSchedule, sigma: float) -> float:
    return float(schedule.timestep_at(torch.tensor(sigma, dtype=torch.float64)))


def _peak(ratios: pd.Series, values: pd.Series) -> float:
    """Where a parabola in log ratio through the largest value and its neighbours peaks."""
    order = np.argsort(ratios.to_numpy(float))
    a, v = np.log(ratios.to_numpy(float)[order]), values.to_numpy(float)[order]
    i = int(v.argmax())
    if i in (0, len(v) - 1):
        return float(np.exp(a[i]))
    second, first, _ = np.polyfit(a[i - 1 : i + 2], v[i - 1 : i + 2], 2)
    return float(np.exp(-first / (2 * second)))
