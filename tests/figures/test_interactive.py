"""What readers play with: whole without a network, honest about what it shows, with a print beside it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation import noise_grid
from diffusion_codec.evaluation.noise_grid import Cell, Row
from diffusion_codec.evaluation.pictures import ORIGINAL, Picture
from diffusion_codec.evaluation.records import CodecInfo, Record, Results, Run
from diffusion_codec.figures import explorer, interactive, noise_machine, pairs
from tests.tiny import tiny_backbone

ADDRESS = re.compile(r"""(?:src|href)=["'](?!data:)([^"']+)""")


def data_of(markup: str) -> dict:
    (text,) = re.findall(r'<script type="application/json">(.*?)</script>', markup, re.DOTALL)
    return json.loads(text)


def run(protocol: str) -> Run:
    return Run(
        commit="c", python="3", machine="m", device="cpu", threads=1, seed=0, versions={}, dataset="kodak",
        dataset_sha256="0" * 64, dataset_origin="a </script> folder", images=2, protocols={"psnr": protocol},
        codecs={name: CodecInfo(version="1", settings="") for name in ("jpeg", "ceiling-mini", "dfc-mini@1")},
    )  # fmt: skip


def results(protocol: str = "RGB") -> Results:
    made = run(protocol)
    common = {"run": made.id, "width": 80, "height": 64, "metric": "psnr"}
    rows = [
        Record(codec="jpeg", image=image, target_bpp=0.1, bytes=size, bpp=size / 640, value=value, **common)
        for image, size, value in (("a", 60, 20.5), ("b", 64, 22.25))
    ]
    rows.append(Record(codec="ceiling-mini", image="a", value=24.0, **common))
    rows.append(
        Record(codec="dfc-mini@1", image="a", target_bpp=0.1, bytes=50, bpp=0.078, value=21, **common)
    )
    return Results(rows, [made])


def pictures(folder: Path) -> list[Picture]:
    rng = np.random.default_rng(0)
    found = []
    for codec, size in ((ORIGINAL, None), ("jpeg", 900), ("dfc-mini", 800)):
        Image.fromarray(rng.integers(0, 255, (64, 80, 3), dtype=np.uint8)).save(folder / f"{codec}.png")
        bpp = None if size is None else 8 * size / (64 * 80)
        found.append(Picture("a", codec, f"{codec}.png", size, bpp, 0.1, 0.2, "sample"))
    return found


def test_the_explorer_holds_every_number_with_its_file_and_picture(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "print.png")
    original = np.zeros((640, 800, 3), np.uint8)
    shelf = explorer.Shelf(results(), {"a": lambda: original}, pictures(tmp_path), tmp_path)
    made = explorer.explorer([shelf], [tmp_path / "print.png"], "curves", 0.1)
    assert made._repr_mimebundle_()["text/plain"] == "curves"
    assert ADDRESS.findall(made.markup) == []
    assert f"script.src = '{interactive.SCRIPT}'" in made.markup  # once the page is there
    assert re.findall('<img class="still" src="data:image/webp;base64,[^"]+" alt="curves">', made.markup)
    data = data_of(made.markup)
    (kodak,) = data["sets"]
    assert kodak["images"] == ["a", "b"]
    jpeg = next(codec for codec in kodak["codecs"] if codec["id"] == "jpeg")
    assert jpeg["rows"] == [[0, 0.1, 60, 0.09375, 20.5], [1, 0.1, 64, 0.1, 22.25]]
    ceiling = next(codec for codec in kodak["codecs"] if codec["id"] == "ceiling-mini")
    assert ceiling["rows"] == [[0, None, None, None, 24.0]]
    assert ceiling["symbol"] == ""
    assert data["hidden"] == ["dfc-mini@1"]  # on one photograph only: there to choose, not to begin with
    assert [bool(thumb) for thumb in kodak["thumbs"]] == [True, False]
    assert set(kodak["crops"]) == {"0 jpeg 0.1"}  # of codecs that have numbers


def test_numbers_of_two_protocols_are_two_metrics() -> None:
    one, other = results("RGB"), results("luma")
    mixed = Results([*one.records[:1], *other.records[1:2]], [*one.runs.values(), *other.runs.values()])
    (kodak,) = data_of(explorer.explorer([explorer.Shelf(mixed, {})], [], "curves", 0.1).markup)["sets"]
    assert [metric["protocol"] for metric in kodak["metrics"]] == ["RGB", "luma"]
    assert sorted(kodak["codecs"][0]["rows"]) == [
        [0, 0.1, 60, 0.09375, 20.5, None],
        [1, 0.1, 64, 0.1, None, 22.25],
    ]


def test_nothing_measured_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(BadInputError, match="make results"):
        explorer.explorer([explorer.Shelf(Results(), {})], [], "curves", 0.1)


def grid(kind: str = "rounding") -> list[Row]:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)

    def cell(t: int) -> Cell:
        return Cell(t, t / 1000, pixels, 0.3 - t / 10_000, 20.0)

    latent = np.zeros((4, 8, 8), np.float32)
    density = np.full(noise_grid.BINS, 0.4)
    return [
        Row(step, t, latent, density, 0.1, 0.05, [cell(0), cell(50), cell(400)])
        for step, t in ((0.8, 50), (4.0, 400))
    ]


def test_the_machine_has_a_picture_for_every_pair_and_marks_the_match(tmp_path: Path) -> None:
    original = np.zeros((64, 64, 3), np.uint8)
    made = noise_machine.machine({"rounding": grid(), "dithered": grid()}, original, "a cat", [])
    data = data_of(made.markup)
    assert data["t"] == [0, 50, 400]
    assert [kind["name"] for kind in data["kinds"]] == ["rounding", "universal (dithered)"]
    assert [row["t"] for row in data["kinds"][0]["rows"]] == [50, 400]
    assert all(t in data["t"] for t in (50, 400))
    assert ADDRESS.findall(made.markup) == []


def test_the_print_of_the_machine_has_every_step_with_too_little_and_too_much(tmp_path: Path) -> None:
    figure = noise_machine.still(grid())
    titles = [axis.get_title() for axis in figure.axes[:4]]
    assert titles == ["not denoised", "t too low", "t matched", "t too high"]
    assert figure.axes[2].get_xlabel() == "t = 50, LPIPS 0.295"


def test_the_grid_is_matched_on_its_diagonal_and_honest_about_its_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(noise_grid.metrics, "get", lambda name: lambda a, b: float(np.abs(a - b).mean()))
    pixels = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    backbone = tiny_backbone()
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(backbone, "encode", lambda x: latent)  # a random encoder's latents hardly vary
    for kind in ("rounding", "dithered"):
        rows = noise_grid.rows(backbone, pixels, [50, 400], kind, 1)
        assert [row.matched_t for row in rows] == [50, 400]
        for row in rows:
            assert [cell.t for cell in row.cells] == [0, 50, 400]
            matched = next(cell for cell in row.cells if cell.t == row.matched_t)
            assert matched.sigma == pytest.approx(row.step / 12**0.5, rel=1e-4)
            assert row.density.sum() * 2 * noise_grid.SPAN / noise_grid.BINS == pytest.approx(1)
            assert all(cell.pixels.shape == pixels.shape for cell in row.cells)
        assert rows[0].bpp > rows[1].bpp
    dithered = noise_grid.table({"dithered": rows})
    assert len(dithered) == 6
    # the error of universal quantisation is uniform whatever the latent is
    assert rows[1].deviation == pytest.approx(rows[1].step / 12**0.5, rel=0.15)


@pytest.mark.parametrize("timesteps", [[100], [200, 100], [100, 100]])
def test_timesteps_that_do_not_rise_are_refused(timesteps: list[int]) -> None:
    with pytest.raises(BadInputError, match="expected two or more, rising"):
        noise_grid.rows(tiny_backbone(), np.zeros((64, 64, 3), np.uint8), timesteps, "rounding", 1)


def test_each_picture_once_and_every_pair_to_choose(tmp_path: Path) -> None:
    shown = pairs.pair_slider(
        pictures(tmp_path), tmp_path, "p", "a cat", (0.5, 0.5), ("original", "dfc-mini")
    )
    assert len(re.findall(r"<img hidden id=", shown.markup)) == 3
    assert len(re.findall(r"<option", shown.markup)) == 6
    assert "JPEG: 900 bytes" in shown.markup
    assert len(re.findall("selected", re.sub(r'onchange="[^"]*"', "", shown.markup))) == 2
    with pytest.raises(BadInputError, match="two or more"):
        pairs.pair_slider(pictures(tmp_path)[:1], tmp_path, "p", "a cat", (0.5, 0.5), ("jpeg", "jpeg"))
