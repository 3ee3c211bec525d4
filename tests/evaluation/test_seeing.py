from pathlib import Path

import pandas as pd
import pytest

from diffusion_codec import codec_weights, datasets
from diffusion_codec.codec import Codec, lambda_of
from diffusion_codec.evaluation import seeing
from diffusion_codec.evaluation.choices import Choice, analysed, prepared
from diffusion_codec.fetch import repository_root
from tests.tiny import tiny_backbone, tiny_weights_file


def test_two_p_phi_are_compared_by_files_of_the_same_lambda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeing, "MEASURES", ("psnr",))
    weights = codec_weights.load(tiny_weights_file(tmp_path / "tiny.safetensors"))
    pictures = datasets.subset(datasets.load("sample"), 2)
    coarser = Choice("P_phi", "coarser", change=lambda p: p._replace(alpha=p.alpha / 2))
    seen, blind = (
        prepared(choice, tiny_backbone(), weights, []) for choice in (Choice("P_phi", "as it is"), coarser)
    )
    analyses = analysed(seen, pictures)
    table = seeing.compare(seen, blind, analyses, [20.0])
    assert table["lambda"].tolist() == [round(lambda_of(20.0), 3)] * 2
    own, other_row = table.iloc[0], table.iloc[1]
    assert (own["loss_ratio"], own["loss_ratio_error"]) == (1, 0)
    files = [seen.compress(analysis, 20.0).data for _, analysis in analyses]
    areas = [pixels.shape[0] * pixels.shape[1] for pixels, _ in analyses]
    rates = [8 * len(data) / area for data, area in zip(files, areas, strict=True)]
    assert own["bpp"] == pytest.approx(sum(rates) / 2, abs=1e-4)
    assert own["loss"] > own["bpp"]
    assert other_row["bpp"] < own["bpp"]
    assert other_row["loss_ratio_error"] > 0


def test_the_loss_is_the_one_of_training() -> None:
    codec = Codec.from_pretrained("mini")
    pictures = datasets.subset(datasets.load("sample"), 1)
    (row,) = seeing.measure(codec, analysed(codec, pictures), 30.0).to_dict("records")
    assert row["loss"] == pytest.approx(row["bpp"] + lambda_of(30.0) * 10 ** (-row["psnr"] / 10))
    assert 0 < row["lpips-alex"] < 1


def test_the_stored_table_says_what_the_book_says() -> None:
    table = pd.read_csv(repository_root() / "data/results/seeing.csv")
    blind = table[table.p_phi == "blind"].set_index("lambda")
    smallest, *others = blind.index
    assert blind.loc[smallest, "loss_ratio"] - 3 * blind.loc[smallest, "loss_ratio_error"] > 1
    assert (blind.loc[others, "loss_ratio"] - 2 * blind.loc[others, "loss_ratio_error"]).max() < 1
    assert blind.loc[others, "bpp"].min() > 0.06
