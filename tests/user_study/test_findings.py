"""What the chapter says follows from the numbers, whatever they are."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diffusion_codec.errors import BadInputError
from diffusion_codec.figures import user_study as drawn
from diffusion_codec.user_study import findings, observers, published, store, votes
from diffusion_codec.user_study.power import Spread
from diffusion_codec.user_study.store import Store
from tests.user_study.studies import make_study


@pytest.fixture(scope="module")
def multiples() -> pd.DataFrame:
    return findings.hific_multiples()


def test_the_published_statement_is_reproduced(multiples: pd.DataFrame) -> None:
    rows = multiples.set_index("rival")
    assert rows.loc["BPG-3", "times"] == pytest.approx(2.1, abs=0.01)
    assert rows.loc["BPG-3", "low_raters"] > 0.5  # other raters would say the same ...
    assert rows.loc["BPG-3", "low_images"] < 0.5  # ... other photographs might not
    assert rows.loc["M&S-hi", "low_raters"] > 0.5
    said = findings.hific_sentence(multiples)
    assert "to BPG-3 at 2.1 times its bitrate in 60% of 225 choices" in said
    generalises = findings.generalises_sentence(multiples)
    assert "over raters excludes one half" in generalises
    assert "photographs does not exclude" in generalises


def test_the_matrix_adds_up_and_raters_agree_more_than_by_chance() -> None:
    matrix = findings.hific_matrix().set_index("preferred to")
    assert list(matrix.index) == list(matrix.columns)
    assert matrix.loc["HiFiC-mi", "BPG-3"] + matrix.loc["BPG-3", "HiFiC-mi"] == pytest.approx(100)
    assert matrix.loc["HiFiC-mi", "BPG-3"] == pytest.approx(60)
    assert "in 77% of the choices" in findings.agreement_sentence()


def test_sentences_follow_the_numbers(multiples: pd.DataFrame) -> None:
    surer = multiples.assign(low_images=0.6)
    assert "photographs excludes" in findings.generalises_sentence(surer)
    judged = pd.DataFrame(
        {"rival": ["avif", "jpeg"], "asked": 2.0, "ratio": 2.0, "observer": "lpips-alex"}
        | {"share": [0.4, 0.7], "low": [0.3, 0.6], "high": [0.5, 0.8], "images": 24}
    )
    said = findings.judged_sentence(judged, "lpips-alex", [2.0])
    assert "40% (30% to 50%) against AVIF" in said
    assert said.endswith("It prefers this codec to JPEG there.")
    assert "to none of them" in findings.judged_sentence(judged.assign(low=0.1), "lpips-alex", [2.0])
    assert "nothing was measured" in findings.judged_sentence(judged, "psnr", [2.0])
    gaps = findings.judged_sentence(judged, "lpips-alex", [2.0, 3.0, 4.0])
    assert gaps == f"{said} At 3 and 4 times the bitrate nothing was measured."
    table = findings.judged_table(judged)
    assert list(table.columns) == ["against", "its bitrate", "LPIPS (AlexNet)"]
    assert table.iloc[0].tolist() == ["AVIF", "2.00 ×", "40% (30–50)"]


def test_the_paper_is_said_to_be_empty_until_it_is_filled() -> None:
    filled = any(row.filled for row in published.paper().rows)
    assert ("cells are empty" in findings.paper_sentence()) != filled


def test_raters_and_photographs_are_given_with_the_fewest_choices() -> None:
    said = findings.raters_sentence(0.6, (20, 40, 80), Spread(0.09, 0.145))
    assert "40 photographs" in said
    assert "more than 20" in findings.raters_sentence(0.51, (10, 20), Spread(0.1, 0.2))
    table = findings.raters_table([0.55, 0.6], (10, 40), Spread(0.09, 0.145))
    assert table["10"].isna().all()
    assert table["40"][1] == 18


def test_observers_that_lose_to_a_coin_are_named_as_such() -> None:
    fitted = observers.from_people()
    said = findings.observers_sentence(fitted)
    assert said == "On pairs left out of the fit only LPIPS (AlexNet) does better than a coin (loss 0.693)."
    assert "no observer does better" in findings.observers_sentence({"psnr": fitted["psnr"]})
    assert len(findings.observers_table(fitted)) == len(fitted)


def test_votes_of_the_server_and_of_files_come_together_once(tmp_path: Path) -> None:
    empty = findings.collected(tmp_path, ())
    assert empty.empty
    assert "No votes yet" in findings.votes_sentence(empty)
    kept = Store(tmp_path / store.FILE, make_study(tmp_path))
    token, _ = kept.begin()
    for trial in range(3):
        kept.vote(token, trial, "a", 1.0)
    exported = tmp_path / "votes.csv"
    exported.write_text(store.export(tmp_path))
    other = tmp_path / "other.csv"
    other.write_text(exported.read_text().replace(",r-", ",x-"))
    together = findings.collected(tmp_path, [str(exported), str(other)])
    assert len(together) == 6
    assert "6 answers of 2 rater(s)" in findings.votes_sentence(together)
    conflicting = tmp_path / "conflicting.csv"
    rows = votes.read([exported]).assign(choice="b")
    conflicting.write_text(votes.to_csv(rows.astype(object).where(rows.notna(), None).to_dict("records")))
    with pytest.raises(BadInputError, match="twice"):
        findings.collected(tmp_path, [str(conflicting)])


def test_figures_show_every_row() -> None:
    ratings = findings.hific_ratings(resamples=10)
    figure = drawn.ratings(ratings)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(ratings["condition"])[
        ::-1
    ]
    judged = pd.DataFrame(
        {"rival": ["avif", "avif", "jpeg", "jpeg"] * 2, "ratio": [1.0, 2.0] * 4}
        | {"observer": ["psnr"] * 4 + ["lpips-alex"] * 4, "share": 0.5, "low": 0.4, "high": 0.6}
    )
    panels = drawn.multiples(judged, panels="observer")
    assert len(panels.axes) == 2
    assert [text.get_text() for text in panels.axes[1].get_legend().get_texts()] == ["AVIF", "JPEG"]
    needed = drawn.needed({"to show 60%": [(10, None), (20, 80), (40, 20)]})
    (line,) = needed.axes[0].get_lines()
    assert np.array_equal(line.get_xdata(), [20, 40])


def test_rows_that_the_model_does_not_fit_are_counted() -> None:
    table = findings.hific_multiples()
    assert findings.fits_sentence(table).startswith(
        "In 4 of 8 rows that lies outside both intervals: one number"
    )
    fitting = table.assign(expected=table["share"])
    assert findings.fits_sentence(fitting) == "In 0 of 8 rows that lies outside both intervals."
