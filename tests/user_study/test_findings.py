"""What the chapter says follows from the numbers, whatever they are."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diffusion_codec.errors import BadInputError
from diffusion_codec.evaluation import claims
from diffusion_codec.figures import user_study as drawn
from diffusion_codec.user_study import findings, observers, power, published, store, votes
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
    assert "in 64% (51% to 77%) with each photograph counted alike" in said


def test_what_other_photographs_would_say_depends_on_the_weights(multiples: pd.DataFrame) -> None:
    said = findings.generalises_sentence(multiples)
    assert "over raters excludes one half" in said
    assert "does not exclude it where all choices are put together, and excludes it where each" in said
    assert said.endswith("depends on the weights.")
    surer = findings.generalises_sentence(multiples.assign(low_images=0.6))
    assert "photographs excludes it where all" in surer
    assert "depends" not in surer
    assert multiples.set_index("rival").loc["M&S-mi", "alike"] == pytest.approx(0.736, abs=0.001)
    assert findings.adaptive_sentence().startswith("HiFiC-mi and M&S-mi, for instance, 1 to 18 times")
    assert "−0.75" in findings.adaptive_sentence()


def test_the_matrix_adds_up_and_raters_agree_more_than_by_chance() -> None:
    matrix = findings.hific_matrix().set_index("preferred to")
    assert list(matrix.index) == list(matrix.columns)
    assert matrix.loc["HiFiC-mi", "BPG-3"] + matrix.loc["BPG-3", "HiFiC-mi"] == pytest.approx(100)
    assert matrix.loc["HiFiC-mi", "BPG-3"] == pytest.approx(60)
    assert "in 77% of the choices" in findings.agreement_sentence()


def test_sentences_follow_the_numbers() -> None:
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
    few = judged.assign(low=np.nan, high=np.nan)
    assert "40% against AVIF" in findings.judged_sentence(few, "lpips-alex", [2.0])
    assert findings.judged_table(few).iloc[0, 2] == "40% (–)"


def test_the_paper_is_said_to_be_empty_until_it_is_filled() -> None:
    filled = any(row.filled for row in published.paper().rows)
    assert ("cells are empty" in findings.paper_sentence()) != filled


def test_raters_and_photographs_are_given_with_the_fewest_choices() -> None:
    said = findings.raters_sentence(0.6, (20, 40, 80), Spread(0.09, 0.145))
    assert "40 photographs" in said
    assert "more than 20" in findings.raters_sentence(0.51, (10, 20), Spread(0.1, 0.2))
    table = findings.raters_table([0.55, 0.6], (10, 40), Spread(0.09, 0.145))
    assert table["10"].isna().all()
    assert table["40"][1] == power.raters_needed(0.6, 40, Spread(0.09, 0.145))
    alarms = findings.false_alarms_sentence([0.55, 0.6], (10, 40), Spread(0.09, 0.145))
    chance = power.power(0.5, table["40"][1], 40, Spread(0.09, 0.145))
    assert f"in up to {chance:.0%} of cases (nominally 2.5%;" in alarms
    assert "enough" in findings.false_alarms_sentence([0.51], (10,), Spread(0.1, 0.2))


def test_claim_c4_asks_for_as_many_raters_as_its_photographs_need() -> None:
    (images,) = {int(n) for n in re.findall(r"all (\d+) photographs", c4().quantity)}
    assert f"after {power.raters_needed(0.6, images, findings.spread())} raters" in c4().quantity


def c4() -> claims.Claim:
    return claims.read_claims(claims.ledger_path())["C4"]


def test_observers_that_lose_to_a_coin_are_named_as_such() -> None:
    fitted = observers.from_people()
    alike = observers.from_people(alike=True)
    assert {o.pairs for o in alike.values()} == {3}
    said = findings.observers_sentence(fitted, alike)
    assert "PSNR 0.533, MS-SSIM 0.528 and LPIPS (AlexNet) 0.531 (a coin: 0.693)" in said
    assert said.endswith("a coin does better than PSNR and MS-SSIM.")
    assert "all between rates of one codec" in said
    assert "does better" not in findings.observers_sentence(alike, alike)
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


def test_what_votes_say_of_the_claim_follows_them() -> None:
    rows = {"rival": ["avif-slow", "vvc"], "asked": 2.0, "ratio": [1.9, 2.0], "share": [0.6, 0.7]}
    ends = {"low_raters": [0.55, 0.62], "high_raters": 0.8, "low_images": [0.52, 0.6], "high_images": 0.9}
    table = pd.DataFrame(rows | ends | {"votes": 900, "raters": 40, "images": 24})
    assert "not tested; nothing on this page" in findings.claim_sentence(table[:0])
    assert "photographs, is 52.0%. It decides claim C4 if" in findings.claim_sentence(table)
    assert "do not test claim C4" in findings.claim_sentence(table.assign(low_images=np.nan))
    assert "do not test claim C4" in findings.claim_sentence(table.assign(asked=1.5))
    shown = findings.collected_table(table.assign(low_images=np.nan))
    assert shown.iloc[0].tolist() == ["AVIF (slow)", "1.90 ×", "60%", "55–80", "–", 900, 40, 24]


def test_figures_show_every_row() -> None:
    ratings = findings.hific_ratings(resamples=10)
    table = findings.rated_table(ratings)
    assert list(table.columns) == ["condition", "Elo", "95 % (raters)", "95 % (photographs)", "choices"]
    assert table["95 % (raters)"].str.fullmatch(r"\d+–\d+").all()
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
