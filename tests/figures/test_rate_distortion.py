"""Figures are drawn from tables: every codec in its panel, the ceiling in each, nothing that does not compare."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation.pictures import ORIGINAL, Picture
from diffusion_codec.evaluation.tables import NotComparableError
from diffusion_codec.figures import comparison, rate_distortion, style

CODECS = ("jpeg", "avif", "dfc-mini", "dfc-mini@0", "ceiling-mini")


@pytest.fixture(autouse=True)
def house_style() -> None:
    style.use()


def summary(metrics=("psnr", "lpips-alex"), dataset="kodak") -> pd.DataFrame:
    rows = []
    for metric in metrics:
        for number, codec in enumerate(CODECS):
            for rate in (0.1, 0.2, 0.4) if codec != "ceiling-mini" else (np.nan,):
                value = number + (rate if rate == rate else 9)
                rows.append(
                    {
                        "codec": codec,
                        "target_bpp": rate,
                        "bpp": rate,
                        "metric": metric,
                        "value": value,
                        "low": value - 0.1,
                        "high": value + 0.1,
                        "images": 24,
                        "missing": 0,
                        "steps": 3 if codec == "dfc-mini" else 0,
                        "dataset": dataset,
                    }
                )
    return pd.DataFrame(rows)


def drawn(axis) -> dict[str, np.ndarray]:
    return {line.get_label(): np.array(line.get_xydata()) for line in axis.get_lines()}


def test_every_panel_shows_every_codec_where_it_was_measured_and_the_ceiling():
    figure = rate_distortion.curves(summary(), ["psnr", "lpips-alex"])
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["PSNR (dB) ↑", "LPIPS (AlexNet) ↓"]
    for axis in figure.axes:
        lines = drawn(axis)
        assert set(lines) == {rate_distortion.line(codec).label for codec in CODECS}
        assert lines["JPEG"] == pytest.approx(np.array([[0.1, 0.1], [0.2, 0.2], [0.4, 0.4]]))
        ceiling = lines[rate_distortion.line("ceiling-mini").label]
        assert set(ceiling[:, 1]) == {13.0}
        assert "bits per pixel" in axis.get_xlabel()


def test_the_legend_stays_inside_the_figure_however_long_its_names():
    table = summary()
    variants = (
        "ceiling-mini",
        "dfc-mini",
        "dfc-mini:paper-2024",
        "dfc-mini:independent",
        "dfc-mini@0",
        "avif",
        "vvc",
    )
    long = [table[table.codec == "jpeg"].assign(codec=name) for name in (*variants, "jpeg-xl")]
    figure = rate_distortion.curves(pd.concat(long), ["psnr", "lpips-alex"])
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert len(figure.legends) == 1
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def test_a_mean_over_fewer_photographs_is_left_out():
    table = summary()
    table.loc[(table["codec"] == "jpeg") & (table["target_bpp"] == 0.1), "missing"] = 3
    axis = rate_distortion.curves(table, ["psnr"]).axes[0]
    assert list(drawn(axis)["JPEG"][:, 0]) == [0.2, 0.4]


def test_a_single_rate_has_an_interval_and_an_axis():
    one = summary()[lambda rows: rows["target_bpp"].isin([0.1, np.nan])].assign(
        bpp=lambda rows: rows["bpp"] * 1.49
    )
    axis = rate_distortion.curves(one, ["psnr"]).axes[0]
    low, high = axis.get_xlim()
    assert sum(low <= tick <= high for tick in axis.get_xticks()) > 1
    assert len(axis.containers) == 4  # error bars of every codec but the ceiling


def test_two_data_sets_do_not_share_a_figure():
    both = pd.concat([summary(), summary(dataset="sample")])
    with pytest.raises(NotComparableError, match="kodak, sample"):
        rate_distortion.curves(both, ["psnr"])


def test_codecs_are_told_apart_without_colour_and_with_it():
    lines = [rate_distortion.line(codec) for codec in (*CODECS, "webp", "jpeg2000")]
    assert len({(line.marker, str(line.dashes)) for line in lines}) == len(lines)
    assert len({line.colour for line in lines}) == len(lines)
    assert len({line.label for line in lines}) == len(lines)


def test_colours_differ_in_lightness_or_hue_for_every_kind_of_vision():
    # a simple simulation: without red-green difference, colours must still be apart
    flat = {name: (sum(to_rgb(code)[:2]), to_rgb(code)[2]) for name, code in style.COLOURS.items()}
    names = sorted(flat)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert np.hypot(*(np.array(flat[a]) - np.array(flat[b]))) > 0.1, (a, b)


def test_gain_and_steps():
    gain = pd.DataFrame(
        {
            "metric": ["lpips-alex"] * 2,
            "bpp": [0.1, 0.2],
            "difference": [-0.05, -0.01],
            "low": [-0.06, np.nan],
            "high": [-0.04, np.nan],
        }
    )
    axis = rate_distortion.denoising(gain, ["lpips-alex"]).axes[0]
    points = [line for line in axis.get_lines() if line.get_marker() == "o"]
    assert points[0].get_ydata() == pytest.approx([-0.05, -0.01])
    axis = rate_distortion.steps(summary(), ["psnr"], default=3).axes[0]
    assert list(axis.get_xticks()) == [0, 3]


def test_equal_figures_are_equal_files(tmp_path):
    first, second = (
        style.keep(rate_distortion.curves(summary(), ["psnr"]), tmp_path / f"{name}.svg", "what is seen")
        for name in "ab"
    )
    assert first.path.read_bytes() == second.path.read_bytes()
    shown = first._repr_mimebundle_()
    assert shown["text/plain"] == "what is seen"
    assert shown["image/svg+xml"].startswith("<?xml")


def picture(codec, image="astronaut", size=100, bpp=0.1) -> Picture:
    return Picture(image, codec, f"{codec}.png", size, bpp, 0.1, 0.25, "sample")


def test_a_grid_shows_each_file_with_its_size(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [picture(ORIGINAL), picture("jpeg", size=4156, bpp=0.127), picture("dfc-mini", size=3245)]
    for shown in pictures:
        pixels = rng.integers(0, 255, (200, 220, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / shown.file)
    figure = comparison.grid(pictures, tmp_path)
    words = " ".join(text.get_text() for axis in figure.axes for text in axis.texts).replace("\u202f", " ")
    assert "4 156 bytes, 0.127 bpp" in words
    assert "its smallest file" in words
    assert "3 245 bytes, 0.100 bpp" in words
    other = picture("jpeg", image="coffee")
    Image.fromarray(pixels).save(tmp_path / other.file)
    figure = comparison.grid([*pictures, other], tmp_path)
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 0, 1, 0, 0, 0]
    with pytest.raises(BadInputError, match="needs pictures"):
        comparison.grid([], tmp_path)


@pytest.mark.parametrize("at", [(0.5, 0.5), (0.0, 0.0), (1.0, 1.0)])
def test_a_crop_stays_inside(at):
    pixels = np.arange(100 * 300 * 3, dtype=np.uint32).reshape(100, 300, 3).astype(np.uint8)
    assert comparison.crop(pixels, at, side=64).shape == (64, 64, 3)
    assert comparison.crop(pixels, at).shape == (100, 100, 3)
