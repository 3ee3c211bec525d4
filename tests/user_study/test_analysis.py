"""Known answers: simulated raters whose preferences are given, and whether the analysis finds them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.user_study import analysis, power, votes
from diffusion_codec.user_study.power import Spread

TRUE = {"best": 1.2, "good": 0.5, "fair": -0.2, "poor": -1.5}  # Bradley-Terry strengths, logits


def simulated(
    rng: np.random.Generator, raters: int, each: int, spread: float = 0.0, ties: float = 0.0
) -> pd.DataFrame:
    """Raters with strengths of their own (standard deviation `spread` about the true ones) judge random pairs."""
    names, votes_ = np.array(list(TRUE)), raters * each
    rater = np.repeat(np.arange(raters), each)
    own = np.array(list(TRUE.values())) + rng.normal(0, spread, (raters, len(names)))
    one = rng.integers(0, len(names), votes_)
    two = (one + rng.integers(1, len(names), votes_)) % len(names)
    wins = rng.random(votes_) < 1 / (1 + np.exp(own[rater, two] - own[rater, one]))
    score = np.where(rng.random(votes_) < ties, 0.5, wins)
    columns = {"rater": rater, "image": rng.integers(0, 8, votes_), "one": names[one], "two": names[two]}
    return pd.DataFrame(columns | {"score": score, "count": 1})


def true_elo() -> pd.Series:
    strengths = pd.Series(TRUE)
    return 1500 + 400 / np.log(10) * (strengths - strengths.mean())


def population_elo(spread: float) -> pd.Series:
    """Of all raters taken together: where raters differ, their mean choice is milder than any one's."""
    wins = analysis.by_cluster(simulated(np.random.default_rng(99), 5_000, 40, spread), list(TRUE))
    return pd.Series(analysis.elo(wins.sum(axis=0)), index=list(TRUE))


def test_ranks_and_ratings_are_recovered() -> None:
    table = simulated(np.random.default_rng(0), raters=40, each=150)
    found = analysis.ratings(table, resamples=50).set_index("condition")
    assert list(found.index) == list(TRUE)
    assert (found["elo"] - true_elo()).abs().max() < 40
    assert found["elo"].mean() == pytest.approx(1500)


def test_intervals_of_ratings_cover_at_the_stated_rate_though_raters_differ() -> None:
    rng, truth = np.random.default_rng(1), population_elo(0.6)
    covered = []
    for _ in range(80):
        table = simulated(rng, raters=15, each=40, spread=0.6)
        found = analysis.ratings(table, resamples=60).set_index("condition").loc[list(TRUE)]
        covered += list((found["low"] <= truth) & (truth <= found["high"]))
    assert 0.91 <= np.mean(covered) <= 0.985  # 320 correlated trials of 0.95


def test_intervals_that_ignored_the_raters_would_not_cover() -> None:
    rng, truth = np.random.default_rng(2), population_elo(1.0)
    covered = []
    for _ in range(30):
        table = simulated(rng, raters=8, each=60, spread=1.0)
        single = table.assign(vote=np.arange(len(table)))  # every vote its own cluster
        found = analysis.ratings(single, "vote", resamples=60).set_index("condition").loc[list(TRUE)]
        covered += list((found["low"] <= truth) & (truth <= found["high"]))
    assert np.mean(covered) < 0.85


def test_a_share_has_an_interval_that_covers_though_raters_differ() -> None:
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(200):
        own = rng.beta(6, 4, 15)  # mean 0.6
        score = rng.random((15, 20)) < own[:, None]
        rows = pd.DataFrame({"score": score.ravel().astype(float), "rater": np.repeat(np.arange(15), 20)})
        part = analysis.share(rows["score"], pd.Series(np.ones(len(rows))), rows["rater"])
        covered.append(part.low <= 0.6 <= part.high)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_a_share_of_all_or_nothing_has_an_interval_and_one_of_few_raters_has_none() -> None:
    ones = pd.Series(np.ones(9))
    part = analysis.share(ones, ones, pd.Series(list("aaabbbccc")))
    assert part.share == 1
    assert 0 < part.low < 1 == part.high
    assert str(part).startswith("100 % (")
    for raters in ("aaaaaaaaa", "aaaaabbbb"):
        for way in (analysis.share, analysis.each_alike):
            few = way(ones * 0.5, ones, pd.Series(list(raters)))
            assert (few.share, few.votes, few.clusters) == (0.5, 9, len(set(raters)))
            assert np.isnan([few.low, few.high]).all()
            assert str(few) == "50 % (no interval)"
    for way in (analysis.share, analysis.each_alike):
        with pytest.raises(BadInputError, match="no votes"):
            way(ones[:0], ones[:0], ones[:0])


def test_each_alike_is_the_mean_of_means_with_students_interval() -> None:
    score, count = pd.Series([1.0, 0.0, 0.5, 1.0]), pd.Series([3, 1, 40, 2])
    found = analysis.each_alike(score, count, pd.Series(list("aabc")))
    own = np.array([0.75, 0.5, 1.0])
    assert found.share == pytest.approx(own.mean())
    assert (found.low, found.high) == (pytest.approx(0.75 - 4.3027 * 0.25 / np.sqrt(3), abs=1e-4), 1)
    assert (found.votes, found.clusters) == (46, 3)


def test_asking_more_about_near_pairs_bends_all_votes_together_and_not_the_mean_of_photographs() -> None:
    own = np.random.default_rng(11).uniform(0.4, 1.0, 400)
    votes_ = pd.Series(np.round(40 * (1.1 - own)))  # as an insertion ranking asks: the nearer, the more often
    rows = pd.Series(own), votes_, pd.Series(np.arange(400))
    assert analysis.each_alike(*rows).share == pytest.approx(own.mean())
    assert analysis.share(*rows).share < own.mean() - 0.04


def test_ties_count_half_to_each_side_and_draw_the_ratings_together() -> None:
    rng = np.random.default_rng(4)
    sure = analysis.ratings(simulated(rng, 20, 100), resamples=10)
    tied = analysis.ratings(simulated(rng, 20, 100, ties=0.5), resamples=10)
    assert list(sure["condition"]) == list(tied["condition"])
    assert np.ptp(tied["elo"]) < 0.7 * np.ptp(sure["elo"])
    table = pd.DataFrame(
        {"rater": "r", "image": "i", "one": "x", "two": "y", "score": [0.5, 1.0], "count": 1}
    )
    assert analysis.preference_matrix(table).loc["x", "y"] == 0.75


def test_the_preference_matrix_counts_both_orders_and_leaves_the_unknown_open() -> None:
    rows = [("x", "y", 1.0, 3), ("y", "x", 1.0, 1), ("y", "z", 0.0, 2)]
    table = pd.DataFrame(rows, columns=["one", "two", "score", "count"]).assign(rater="r", image="i")
    matrix = analysis.preference_matrix(table)
    assert matrix.loc["x", "y"] == 0.75
    assert matrix.loc["y", "x"] == 0.25
    assert matrix.loc["z", "y"] == 1
    assert np.isnan(matrix.loc["x", "z"])
    assert np.isnan(matrix.loc["x", "x"])


def test_a_codec_that_never_lost_has_a_finite_rating_and_few_raters_no_interval() -> None:
    table = pd.DataFrame({"rater": "r", "image": "i", "one": "x", "two": "y", "score": 1.0, "count": [5]})
    found = analysis.ratings(table)
    assert list(found["condition"]) == ["x", "y"]
    assert np.isfinite(found["elo"]).all()
    assert found["low"].isna().all()
    with pytest.raises(BadInputError, match="nothing to rate"):
        analysis.ratings(table[:0])


def test_a_contrast_is_the_difference_of_ratings_with_an_interval_of_its_own() -> None:
    table = simulated(np.random.default_rng(5), raters=20, each=100)
    elo = analysis.ratings(table, resamples=20).set_index("condition")["elo"]
    found = analysis.contrast(table, "best", "good", resamples=200)
    assert found.elo == pytest.approx(elo["best"] - elo["good"])
    assert found.low < 400 / np.log(10) * 0.7 < found.high
    assert found.preferred == pytest.approx(1 / (1 + np.exp(-0.7)), abs=0.05)
    with pytest.raises(BadInputError, match="'nobody'"):
        analysis.contrast(table, "best", "nobody")


def vote_rows(
    rng: np.random.Generator, preferred: dict[float, float], raters: int, each: int
) -> pd.DataFrame:
    """Votes as exported: 'ours' at 0.1 against 'rival' at multiples, preferred as often as said."""
    rows = []
    for rater in range(raters):
        for trial in range(each):
            ratio = list(preferred)[trial % len(preferred)]
            ours, rival = ("ours", 0.1, 0.098), ("rival", 0.1 * ratio, 0.098 * ratio)
            swap = bool(rng.integers(2))
            a, b = (rival, ours) if swap else (ours, rival)
            chosen = rng.random() < preferred[ratio]
            choice = "b" if chosen == swap else "a"
            rows.append(
                (
                    "s",
                    f"r{rater}",
                    0,
                    trial,
                    "pair",
                    f"i{trial % 5}",
                    *a,
                    *b,
                    choice,
                    2.0,
                    "2026-01-01T00:00:00Z",
                )
            )
    return pd.DataFrame(rows, columns=list(votes.FIELDS))


def test_preferred_at_n_times_the_bitrate_is_recovered_whatever_side_the_codec_was_on() -> None:
    truth = {1.0: 0.9, 1.5: 0.7, 2.0: 0.5}
    table = analysis.comparisons(vote_rows(np.random.default_rng(6), truth, raters=40, each=60))
    found = analysis.at_multiples(table, "ours")
    assert list(found["asked"]) == list(truth)
    assert found["ratio"].to_numpy() == pytest.approx(list(truth))
    assert found["share"].to_numpy() == pytest.approx(list(truth.values()), abs=0.04)
    for over in ("raters", "images"):
        low, high = found[f"low_{over}"], found[f"high_{over}"]
        assert ((low < found["share"]) & (found["share"] < high)).all()
        assert (high - low).max() < 0.16
    assert (found[["votes", "raters", "images"]] == [800, 40, 5]).all(axis=None)
    mirrored = analysis.at_multiples(table, "rival")
    assert mirrored["share"].sum() == pytest.approx(3 - found["share"].sum())


def test_the_lowest_end_over_rivals_raters_and_photographs_decides() -> None:
    table = analysis.comparisons(vote_rows(np.random.default_rng(6), {1.0: 0.9, 2.0: 0.7}, raters=4, each=60))
    other = table.replace("rival", "other").assign(image="i0")  # one photograph: no interval over photographs
    found = analysis.at_multiples(table, "ours")
    (twice,) = found[found["asked"] == 2].to_dict("records")
    assert analysis.deciding(found, 2) == min(twice["low_raters"], twice["low_images"])
    assert np.isnan(analysis.deciding(analysis.at_multiples(pd.concat([table, other]), "ours"), 2))
    assert np.isnan(analysis.deciding(found, 3))
    assert np.isnan(analysis.deciding(analysis.at_multiples(table[:0], "ours"), 2))


def small_votes(choices: dict[int, str]) -> pd.DataFrame:
    """One rater: a pair, its repeat, another pair, two sentinels."""
    x, y = ("x", 0.1, 0.1), ("y", 0.2, 0.2)
    original, sentinel = ("original", np.nan, np.nan), ("sentinel", np.nan, 0.1)
    asked = [
        ("pair", "i0", *x, *y),
        ("pair", "i1", *y, *x),
        ("sentinel", "i0", *original, *sentinel),
        ("repeat", "i0", *y, *x),
        ("sentinel", "i1", *sentinel, *original),
    ]
    rows = [
        ("s", "r0", 0, trial, *asked[trial], choice, 1.0 + trial, "2026-01-01T00:00:00Z")
        for trial, choice in choices.items()
    ]
    return pd.DataFrame(rows, columns=list(votes.FIELDS))


def test_a_consistent_attentive_rater_is_kept() -> None:
    (row,) = analysis.raters(small_votes({0: "a", 1: "tie", 2: "a", 3: "b", 4: "b"})).to_dict("records")
    assert row == {
        "rater": "r0",
        "votes": 2,
        "sentinels": 2,
        "sentinels_right": 1.0,
        "repeats": 1,
        "repeats_same": 1.0,
        "ties": 0.5,
        "seconds": 3.0,
        "kept": True,
    }


def test_who_misses_a_sentinel_is_screened_out_and_a_tie_there_is_a_miss() -> None:
    table = small_votes({0: "a", 2: "tie", 3: "a", 4: "b"})
    (row,) = analysis.raters(table).to_dict("records")
    assert (row["sentinels_right"], row["repeats_same"], row["kept"]) == (0.5, 0.0, False)
    assert analysis.screened(table).empty
    careful = small_votes({0: "a", 2: "a"})
    assert len(analysis.screened(careful)) == 2


def test_a_repeat_without_its_pair_says_nothing() -> None:
    (row,) = analysis.raters(small_votes({3: "a"})).to_dict("records")
    assert row["repeats"] == 0
    assert np.isnan(row["repeats_same"])
    assert row["kept"]


def test_guessing_raters_agree_with_the_others_half_of_the_time() -> None:
    rng = np.random.default_rng(7)
    table = simulated(rng, raters=15, each=200)
    guesser = simulated(rng, raters=1, each=1000).assign(rater="guesser")
    guesser["score"] = rng.integers(0, 2, len(guesser)).astype(float)
    found = analysis.agreement(pd.concat([table, guesser])).set_index("rater")["agreement"]
    assert found["guesser"] == pytest.approx(0.5, abs=0.06)
    assert found.drop("guesser").min() > 0.6


def test_comparisons_leave_out_repeats_and_sentinels() -> None:
    table = analysis.comparisons(small_votes({0: "a", 1: "tie", 2: "a", 3: "b", 4: "b"}))
    assert list(table["score"]) == [1.0, 0.5]
    assert list(table["one"]) == ["x at 0.1", "y at 0.2"]


# how many raters it takes


def test_votes_needed_give_the_power_they_promise() -> None:
    rng = np.random.default_rng(8)
    needed = power.votes_needed(0.6, 0.8, 0.95)
    wins = rng.binomial(needed, 0.6, 4000)
    z = (wins / needed - 0.5) / np.sqrt(0.25 / needed)
    assert np.mean(z > 1.96) == pytest.approx(0.8, abs=0.03)
    assert power.votes_needed(0.55) > power.votes_needed(0.6) > power.votes_needed(0.9)


def crossed(rng: np.random.Generator, share: float, raters: int, images: int, spread: Spread) -> np.ndarray:
    """One vote of every rater on every photograph, both with shares of their own."""
    chance = share + rng.normal(0, spread.raters, (raters, 1)) + rng.normal(0, spread.images, (1, images))
    return rng.random((raters, images)) < chance.clip(0, 1)


def shown(won: np.ndarray) -> bool:
    """Whether the votes (raters x photographs) show a preference by the rule that decides."""
    raters, images = np.indices(won.shape)
    score, ones = pd.Series(won.ravel().astype(float)), pd.Series(np.ones(won.size))
    return all(analysis.share(score, ones, pd.Series(over.ravel())).low > 0.5 for over in (raters, images))


@pytest.mark.parametrize(
    ("share", "raters", "images"), [(0.6, 40, 24), (0.6, 5, 20), (0.55, 8, 160), (0.7, 5, 20), (0.5, 30, 20)]
)
def test_the_power_is_how_often_the_rule_that_decides_shows_a_preference(
    share: float, raters: int, images: int
) -> None:
    rng, draws, spread = np.random.default_rng(9), 400, Spread(0.09, 0.145)
    found = np.mean([shown(crossed(rng, share, raters, images, spread)) for _ in range(draws)])
    expected = power.power(share, raters, images, spread)
    assert found == pytest.approx(expected, abs=3.5 * np.sqrt(expected * (1 - expected) / draws))


def test_the_fewest_raters_reach_the_power_and_one_fewer_does_not() -> None:
    spread, images = Spread(0.08, 0.1), 30
    raters = power.raters_needed(0.62, images, spread)
    assert raters is not None
    rng = np.random.default_rng(9)
    means = np.array([crossed(rng, 0.62, raters, images, spread).mean() for _ in range(2000)])
    assert means.std() == pytest.approx(power.standard_error(0.62, raters, images, spread), rel=0.08)
    assert power.power(0.62, raters, images, spread) >= 0.8
    assert power.power(0.62, raters - 1, images, spread) < 0.8


def test_no_plan_has_fewer_than_five_raters_or_than_three_photographs() -> None:
    assert power.raters_needed(0.99, 1000, Spread(0.01, 0.01)) == power.FEWEST_RATERS
    assert power.power(0.9, 100, 2, Spread(0.01, 0.01)) == 0


def test_no_number_of_raters_makes_up_for_too_few_photographs() -> None:
    assert power.raters_needed(0.55, 5, Spread(0.05, 0.15)) is None
    assert power.raters_needed(0.55, 500, Spread(0.05, 0.15)) is not None


def test_the_spread_of_raters_is_recovered_and_is_zero_where_there_is_none() -> None:
    rng = np.random.default_rng(10)

    def study(spread: float) -> pd.DataFrame:
        rows = []
        for pair in range(40):
            for rater in range(25):
                chance = np.clip(0.6 + rng.normal(0, spread), 0, 1)
                won = rng.binomial(12, chance)
                rows.append((f"r{rater}", f"x{pair}", f"y{pair}", 1.0, won))
                rows.append((f"r{rater}", f"y{pair}", f"x{pair}", 1.0, 12 - won))
        return pd.DataFrame(rows, columns=["rater", "one", "two", "score", "count"])

    assert power.pooled(study(0.15), "rater") == pytest.approx(0.15, abs=0.02)
    assert power.pooled(study(0.0), "rater") < 0.04


@pytest.mark.parametrize("bad", [0.5, 1.0, 0.2, 7])
def test_what_is_no_preference_is_refused(bad: float) -> None:
    with pytest.raises(BadInputError, match="share is between"):
        power.votes_needed(bad)


# the csv


def write(path: Path, table: pd.DataFrame) -> Path:
    path.write_text(votes.to_csv(table.astype(object).where(table.notna(), None).to_dict("records")))
    return path


def test_votes_are_read_as_they_were_written_and_each_once(tmp_path: Path) -> None:
    table = small_votes({0: "a", 2: "b"})
    first, second = write(tmp_path / "1.csv", table), write(tmp_path / "2.csv", table)
    found = votes.read([first, second])
    pd.testing.assert_frame_equal(found, table, check_dtype=False)
    assert votes.read([]).empty
    assert list(votes.read([]).columns) == list(votes.FIELDS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"choice": "c"}, "choice is one of"),
        ({"kind": "joke"}, "kind is one of"),
        ({"seconds": "long"}, "seconds is not a number"),
        ({"trial": ""}, "numbers of its session and trial"),
        ({"name": "x"}, "expected the columns"),
    ],
)
def test_what_no_study_wrote_is_refused(tmp_path: Path, change: dict, reason: str) -> None:
    table = small_votes({0: "a"}).astype(object).assign(**change)
    table.to_csv(tmp_path / "votes.csv", index=False)
    with pytest.raises(BadInputError, match=reason):
        votes.read([tmp_path / "votes.csv"])


def test_two_answers_to_one_question_are_an_error(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{choice}.csv", small_votes({0: choice})) for choice in "ab"]
    with pytest.raises(BadInputError, match="answered trial 0"):
        votes.read(paths)
    with pytest.raises(MissingDataError, match="study export"):
        votes.read([tmp_path / "nothing.csv"])
