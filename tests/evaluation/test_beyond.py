"""Sentences and tables of *Beyond the paper*, from small tables."""

from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest

from diffusion_codec.book.paths import repository_root
from diffusion_codec.errors import MissingDataError
from diffusion_codec.evaluation import beyond, records
from diffusion_codec.evaluation.tables import summarise
from diffusion_codec.figures import beyond as figures

CHOICES = """dataset,question,choice,steps,psnr at 0.1,lpips-alex at 0.1
kodak[:4],base,independent,3,24.0,0.3
kodak[:4],t,tied: matched to the step,3,24.5,0.29
kodak[:4],steps,1,1,24.2,0.31
kodak[:4],variant,paper-2024,3,23.0,0.35
kodak[:4],variant,paper-2025,3,,
"""


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    path = tmp_path / "choices.csv"
    path.write_text(CHOICES, encoding="utf-8")
    return beyond.choices(path)


def test_choices_are_told_against_the_base(table: pd.DataFrame) -> None:
    assert set(table.rate) == {0.1}
    told = beyond.change(table, "tied: matched to the step")
    assert told == "+0.50 dB PSNR and \u22120.0100 LPIPS (AlexNet)"
    assert beyond.change(table, "paper-2025") == beyond.change(table, "no such") == "not measured"


@pytest.mark.parametrize(
    ("choice", "than", "said"),
    [
        ("tied: matched to the step", "independent", "better in both measures"),
        ("paper-2024", "independent", "worse in both measures"),
        ("1", "independent", "better in PSNR, worse in LPIPS"),
        ("independent", "1", "better in LPIPS, worse in PSNR"),
    ],
)
def test_one_choice_against_another(table: pd.DataFrame, choice: str, than: str, said: str) -> None:
    assert beyond.better(table, choice, than) == said


def test_choices_are_shown_in_words(table: pd.DataFrame) -> None:
    shown = beyond.choices_table(table)
    assert list(shown) == ["question", "choice", "PSNR at 0.1", "LPIPS (AlexNet) at 0.1"]
    assert shown.iloc[0].tolist() == ["the base", "independent", "24.00", "0.3000"]
    assert shown.iloc[-1].tolist() == ["all of it, trained", "paper-2025", "–", "–"]


def test_what_was_not_measured_is_said(table: pd.DataFrame, tmp_path: Path) -> None:
    assert "not compared" in beyond.better(table, "no such", "1")
    assert "not compared" in beyond.better(table, "paper-2025", "paper-2024")
    with pytest.raises(MissingDataError, match=r"evaluation\.choices"):
        beyond.choices(tmp_path / "gone.csv")


def test_the_figure_has_a_row_for_each_choice_and_question(table: pd.DataFrame) -> None:
    drawn = figures.choices(table, beyond.QUESTIONS)
    labels = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
    assert "1 step" in labels
    assert sum(label.startswith("$") for label in labels) == 3  # t, steps, variant


def test_the_fewest_bits_are_marked(tmp_path: Path) -> None:
    path = tmp_path / "entropy.csv"
    path.write_text(
        "dataset,lambda,zeroth_order,lattice_hyper,lattice_total,hyperprior-lattice_hyper,hyperprior-lattice_total\n"
        "kodak,10.0,0.03,0.0,0.02,0.007,0.027\n",
        encoding="utf-8",
    )
    (row,) = beyond.entropy_table(path).to_dict("records")
    assert row["lambda"] == "10"
    assert row["lattice"] == "0.0200 *"
    assert row["hyperprior + lattice"] == "0.0270 (0.0070)"


def test_rates_to_expect_end_with_the_autoencoder() -> None:
    summary = pd.DataFrame(
        [
            ("dfc-mini", 0.1, 0.099, "psnr", 23.71),
            ("dfc-mini", 0.1, 0.099, "lpips-alex", 0.2614),
            ("ceiling-mini", None, None, "psnr", 25.0),
            ("avif", 0.1, 0.1, "psnr", 27.0),
        ],
        columns=["codec", "target_bpp", "bpp", "metric", "value"],
    )
    first, last = beyond.rates_table(summary).to_dict("records")
    assert (first["really"], first["PSNR (dB)"], first["LPIPS (AlexNet)"]) == ("0.099", "23.7", "0.261")
    assert first["kB of 12 megapixels"] == "148"
    assert first["MS-SSIM"] == "–"
    assert last["bits per pixel asked for"].startswith("no file")


def test_a_denoiser_is_told_against_another(tmp_path: Path) -> None:
    path = tmp_path / "denoisers.csv"
    rows = ["dataset,t,dither,denoiser,psnr,lpips-alex,lpips-squeeze"]
    for t, better in ((20, 0.5), (50, -0.25)):
        for dither in (False, True):
            rows += [f"kodak[:1],{t},{dither},epsilon,24,0.3,0.2", f"kodak[:1],{t},{dither},none,20,0.5,0.4"]
            rows.append(f"kodak[:1],{t},{dither},uniform noise,{24 + better},{0.3 - better / 10},0.2")
    path.write_text("\n".join(rows), encoding="utf-8")
    table = beyond.denoisers(path)
    told = beyond.denoiser_change(table, "uniform noise")
    assert told == (
        "\u22120.25 to +0.50 dB PSNR (ahead at 1 of 2 timesteps) and "
        "\u22120.050 to +0.025 LPIPS (AlexNet) (ahead at 1 of 2 timesteps)"
    )
    assert beyond.dither_gain(table, "epsilon", 20) == 0
    shown = beyond.denoisers_table(table)
    assert shown.denoiser.tolist() == ["no denoising", "uniform noise"] * 2
    assert shown.iloc[1].tolist()[2:] == ["\u22120.25 to +0.50", "1 of 2", "\u22120.050 to +0.025", "1 of 2"]
    drawn = figures.denoisers(table)
    assert [line.get_label() for line in drawn.axes[0].get_legend().get_lines()] == ["uniform noise"]
    with pytest.raises(MissingDataError, match="denoiser-study"):
        beyond.denoisers(tmp_path / "gone.csv")


def test_what_integers_cost_is_shown_in_words(tmp_path: Path) -> None:
    path = tmp_path / "integers.csv"
    path.write_text(
        "dataset,lambda,real_bpp,stream_bpp,real_seconds,exact_seconds\nkodak,2.297,0.02,0.0202,0.1,0.3\n",
        encoding="utf-8",
    )
    assert beyond.integers_table(path).iloc[0].tolist() == [
        "2.3",
        "0.0200",
        "0.0202",
        "1.00",
        "0.10",
        "0.30",
    ]


def test_the_stored_trial_of_denoisers_says_what_the_book_says() -> None:
    table = beyond.denoisers(repository_root() / "data/results/denoisers.csv")
    value = table.pivot(index=["dither", "t"], columns="denoiser")
    psnr, lpips = value["psnr"], value["lpips-alex"]
    assert (psnr["uniform noise"] > psnr["epsilon"]).loc[True].loc[50:].all()
    assert (lpips["uniform noise"] < lpips["epsilon"]).loc[True].all()
    fine = [t for t in table.t.unique() if t <= 100]
    for dither in (True, False):
        for name in ("v-prediction", "regression"):
            assert (psnr[name] < psnr["epsilon"]).loc[dither].loc[fine].all()
            assert (lpips[name] > lpips["epsilon"]).loc[dither].loc[fine].all()
    assert (psnr["regression"] > psnr["epsilon"]).loc[False].loc[[200, 300, 400]].all()


def test_the_stored_entropy_models_say_what_the_book_says() -> None:
    path = repository_root() / "data/results/entropy_models.csv"
    table = pd.read_csv(path).set_index("lambda")
    ratio = table["lattice-from-noise_total"] / table["lattice_total"]
    assert ratio.iloc[0] > 1.1
    assert ratio.iloc[1:].between(0.99, 1.01).all()
    assert "lattice-from-noise" not in " ".join(beyond.entropy_table(path).columns)


COLUMNS = "dataset,config,question,variant,seed,lowest_bpp,highest_bpp,psnr at 0.1,lpips-alex at 0.1,declared at 0.1"
TRAINING = f"""{COLUMNS},"psnr at 0.1, t matched","lpips-alex at 0.1, t matched"
kodak[:4],trial,base,as here,0,0.01,0.2,24.0,0.20,1.0,25.0,0.18
kodak[:4],trial,base,as here,1,0.02,0.2,24.2,0.24,1.5,25.0,0.20
kodak[:4],trial,lambda,even,0,0.02,0.3,24.3,0.22,1.0,24.3,0.22
kodak[:4],trial,lambda,even,1,0.02,0.3,24.5,0.23,1.0,24.5,0.23
kodak[:4],trial,pace,small,0,0.2,0.3,24.3,0.25,1.0,24.3,0.25
kodak[:4],trial,pace,small,1,0.2,0.3,,,1.0,,
kodak[:4],cpu,base,as here,0,0.01,0.2,99.0,0.01,,,
kodak[:4],cpu,base,as here,1,0.01,0.2,98.0,0.03,,,
"""


def test_runs_of_a_variant_are_told_by_mean_and_range(tmp_path: Path) -> None:
    path = tmp_path / "training.csv"
    path.write_text(TRAINING)
    table = beyond.training_table(path, "trial", [0.1])
    assert list(table["what differs"]) == ["as here", "even", "small"]
    base, even, small = (row.tolist() for _, row in table.iterrows())
    assert base == ["as here", "1.25 ± 0.25", "24.10 ± 0.10", "0.220 ± 0.020", "", "0.190 ± 0.010"]
    assert even[2:5] == ["24.40 ± 0.10", "0.225 ± 0.005", "better in PSNR, alike in LPIPS"]
    assert small[2:5] == ["–", "–", "no file that small"]
    alone = beyond.training_table(path, "cpu", [0.1])
    assert alone["bits per pixel"].tolist() == ["0.010 to 0.200"]
    assert list(alone.columns)[-1] == "against the base at 0.1"
    assert beyond.chance_of_training(path, 0.1) == pytest.approx({"psnr": 1.0, "lpips-alex": 0.02})


def test_a_run_is_drawn_where_its_files_declare_and_where_they_match(tmp_path: Path) -> None:
    path = tmp_path / "training.csv"
    path.write_text(TRAINING)
    runs = pd.read_csv(path).query("config == 'trial' and question != 'pace'")
    psnr, lpips = figures.noise_declared(runs).axes
    filled = [line for line in lpips.lines if line.get_label() in set(runs.variant)]
    hollow = [line for line in lpips.lines if line.get_markerfacecolor() == "none"]
    assert [list(line.get_xdata()) for line in filled] == [[1.0, 1.5], [1.0, 1.0]]
    assert [list(line.get_ydata()) for line in hollow] == [[0.18, 0.20], [0.22, 0.23]]
    assert psnr.get_xlabel() == lpips.get_xlabel()


def test_what_a_description_brings_is_told_picture_by_picture(tmp_path: Path) -> None:
    path = tmp_path / "described.csv"
    rows = ["dataset,image,t,denoiser,told,guidance,latent_mse,psnr,lpips-alex"]
    for image, gain in (("a", 1.0), ("b", 3.0)):
        for t in (100, 400):
            rows.append(f"k,{image},{t},trained without descriptions,nothing,1.0,0.10,20.0,0.5")
            rows.append(f"k,{image},{t},trained with descriptions,its description,2.0,0.09,{20 + gain},0.4")
    path.write_text("\n".join(rows) + "\n")
    (row,) = beyond.described_table(path).to_dict("records")
    assert row["told"] == "its description, guidance 2"
    assert row["dB PSNR"] == "+2.00 (+1.00 to +3.00)"
    assert row["latent's squared error (%)"].startswith("\u221210.0 (")
    assert row["LPIPS (AlexNet)"] == "\u22120.100 (\u22120.100 to \u22120.100)"


def test_the_stored_descriptions_say_what_the_book_says() -> None:
    changes = beyond.described(repository_root() / "data/results/denoisers_described.csv")
    assert changes.image.nunique() == 8
    ways = changes.groupby(["denoiser", "told", "guidance"]).mean(numeric_only=True)
    own, anothers, strong = (
        ways.loc[("trained with descriptions", *way)]
        for way in (("its description", 1.0), ("another's description", 1.0), ("its description", 4.0))
    )
    nothing = ways.loc[("trained with descriptions", "nothing", 1.0)]
    assert abs(own["psnr"] - anothers["psnr"]) < 0.02
    assert abs(own["lpips-alex"] - anothers["lpips-alex"]) < 0.002
    for told in (own, anothers):
        assert 0 < told["latent_mse"] - nothing["latent_mse"] < 1.5
        assert -0.01 < told["lpips-alex"] - nothing["lpips-alex"] < 0
    assert strong["latent_mse"] > 3 * own["latent_mse"]
    assert strong["lpips-alex"] < own["lpips-alex"]


def test_priors_stand_side_by_side_with_their_parameters(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text(
        "dataset,prior,parameters,lambda,hyper_bpp,bpp\n"
        "kodak[:4],lattice,200000,64.0,0.0,0.1\nkodak[:4],lattice,200000,2000.0,0.0,0.2\n"
        "kodak[:4],hyperprior,213400,64.0,0.01,0.09\nkodak[:4],hyperprior,213400,2000.0,0.02,0.3\n"
    )
    table = beyond.others_table(path)
    assert list(table) == [
        "lambda",
        "lattice (200 k)",
        "hyperprior (213 k)",
    ]
    assert table.to_numpy().tolist() == [
        ["64", "0.1000", "0.0900 (0.0100)"],
        ["2000", "0.2000", "0.3000 (0.0200)"],
    ]


def test_what_seeing_is_worth_is_told_in_per_cent(tmp_path: Path) -> None:
    path = tmp_path / "seeing.csv"
    path.write_text(
        "dataset,lambda,p_phi,bpp,psnr,lpips-alex,loss,loss_ratio,loss_ratio_error\n"
        "kodak,12.126,sees the picture,0.05,22.0,0.3,0.1,1.0,0.0\n"
        "kodak,12.126,blind,0.06,21.0,0.4,0.2,1.0123,0.004\n"
    )
    told = beyond.seeing_table(path)
    assert told["loss, % of that which sees"].tolist() == ["100", "101.2 \u00b1 0.4"]
    assert told["lambda"].tolist() == ["12.1", "12.1"]


def test_each_latent_is_read_by_each_decoder(tmp_path: Path) -> None:
    path = tmp_path / "latent_space.csv"
    path.write_text(
        "dataset,latent,decoder,psnr,lpips-alex\n"
        "kodak,mini,mini,25.0,0.1\nkodak,mini,TAESD,24.0,0.2\n"
        "kodak,TAESD,mini,23.0,0.3\nkodak,TAESD,TAESD,22.0,0.4\n"
    )
    table = beyond.latent_space_table(path)
    assert table["latent by"].tolist() == ["mini", "TAESD"]
    assert table.loc[0].tolist() == ["mini", "25.00", "0.1000", "24.00", "0.2000"]
    assert list(table)[3].endswith("decoded by TAESD")


def test_ways_to_work_on_a_large_picture_stand_one_below_the_other(tmp_path: Path) -> None:
    path = tmp_path / "large_pictures.csv"
    path.write_text(
        "dataset,picture,rate,worked_on,bpp,psnr,lpips-alex\n"
        "kodak,mosaic,0.1,in one piece,0.0999,24.0,0.2\nkodak,mosaic,0.1,in tiles,0.0998,23.0,0.3\n"
        "kodak,mosaic,0.05,in one piece,0.0499,22.0,0.4\nkodak,mosaic,0.05,in tiles,0.0498,21.0,0.5\n"
    )
    table = beyond.large_pictures_table(path)
    assert table["worked on"].tolist() == ["in one piece", "in tiles"]
    assert table.iloc[1, 2:].tolist() == ["0.0998", "23.00", "0.3000", "0.0498", "21.00", "0.5000"]


def test_what_refining_changes_is_told_by_steps(tmp_path: Path) -> None:
    path = tmp_path / "refinement.csv"
    path.write_text(
        "dataset,backbone,fingerprint,rate,steps,bpp,psnr,ms-ssim,lpips-alex,lpips-squeeze,dists,seconds,images\n"
        "kodak,mini,a,0.1,0,0.0980,23.5,0.84,0.2,0.1,0.15,0.0,24\nkodak,mini,a,0.1,40,0.0979,24.0,0.85,0.16,0.08,0.12,99.6,24\n"
        "kodak,small,b,0.1,0,0.0980,23.5,0.84,0.3,0.1,0.15,0.0,24\n"
    )
    table = beyond.refinement_table(path)
    assert table["s"].tolist() == ["–", "100", "–"]
    assert table.iloc[1, :4].tolist() == ["mini", 40, "0.0979", "24.00"]
    kept, compared = beyond.refined(path, 0.1, "mini", {"vvc": 0.2, "avif": 0.4, "jpeg": 0.8})
    assert (str(kept), str(compared)) == ("80.0 %", "40.0 % of AVIF's, 80.0 % of VVC's")
    assert str(beyond.refined(path, 0.1, "mini", {})[1]) == "not compared"


def test_realism_of_weights_stands_side_by_side() -> None:
    stored = repository_root() / "data/results/kodak_realism.csv"
    codecs = ["dfc-mini", "dfc-mini:paper-2024", "dfc-mini@0"]
    table = beyond.realism_table(stored, codecs)
    assert table["codec"].tolist() == 3 * codecs
    assert table["bits per pixel"].tolist()[::3] == ["0.05", "0.1", "0.2"]
    kid = table.assign(KID=table["KID"].astype(float)).pivot(
        index="bits per pixel", columns="codec", values="KID"
    )
    low = kid.loc[["0.05", "0.1"]]
    assert (low["dfc-mini"] < low["dfc-mini:paper-2024"]).all()
    assert (low["dfc-mini"] < low["dfc-mini@0"] / 2).all()
    assert kid.loc["0.2"].drop("dfc-mini@0").max() < kid.loc["0.2"].min() * 1.05


def test_the_stored_choices_say_what_the_book_says() -> None:
    path = repository_root() / "data/results/codec_choices.csv"
    table = beyond.choices(path)
    limits = {name: beyond.chance(table, name) for name in ("psnr", "lpips-alex")}
    assert limits["psnr"] < 0.1
    assert limits["lpips-alex"] < 0.003
    raw = pd.read_csv(path).set_index("choice")
    psnr, lpips = raw["psnr at 0.1"], raw["lpips-alex at 0.1"]
    low_psnr, low_lpips = raw["psnr at 0.05"], raw["lpips-alex at 0.05"]
    base, one, blind = "independent", "one alpha for all channels", "blind: P_phi sees lambda alone"
    for choice in (
        one,
        "no beta",
        blind,
        "tied: matched to the step",
        "beta in 16 levels a step",
        "t in multiples of 32",
    ):
        assert beyond.better(table, choice, base) == "alike in both measures"
    assert low_psnr[one] > low_psnr[base] > low_psnr["no beta"]
    assert low_lpips[one] < low_lpips[base] < low_lpips["no beta"]
    assert 0 < low_lpips[blind] - low_lpips[base] < 0.01
    matched, more, lower, lowest = (
        f"tied: {level}"
        for level in ("matched to the step", *(f"{part} of the matched level" for part in (1.2, 0.8, 0.6)))
    )
    assert psnr[more] > psnr[matched] > psnr[lower] > psnr[lowest]
    assert lpips[more] > lpips[lower] > lpips[matched]
    assert lpips[lowest] > lpips[lower]
    assert low_lpips[lower] < low_lpips[base]
    assert beyond.better(table, "dither, coder unaware", base) == "worse in PSNR, alike in LPIPS"
    assert pd.isna(low_psnr["dither, coder unaware"])
    assert lpips["decoded a tenth nearer to zero"] > lpips[base] + limits["lpips-alex"]
    steps = {"0": "no denoising", "3": base} | {count: count for count in ("1", "2", "5", "10")}
    assert max(steps, key=lambda count: psnr[steps[count]]) == "1"
    assert sorted(steps, key=lambda count: lpips[steps[count]])[:2] == ["2", "3"]
    assert sorted(steps, key=lambda count: low_lpips[steps[count]]) == ["10", "5", "3", "2", "1", "0"]
    for spacing in ("3, the last ones shorter", "3, the first ones shorter"):
        assert abs(lpips[spacing] - lpips[base]) < 0.01
        assert abs(low_lpips[spacing] - low_lpips[base]) < 0.01
    for noisy in ("3, half the noise drawn anew", "3, noise drawn anew (DDPM)"):
        assert beyond.better(table, noisy, base) == "worse in both measures"
    less, match = (f"tied: {level}, one DDIM step" for level in ("0.8 of the matched level", "matched"))
    assert lpips[less] < lpips[match]
    assert low_lpips[less] < low_lpips[match]
    assert lpips["a tenth nearer to zero, no denoising"] < lpips["no denoising"] - limits["lpips-alex"]
    undenoised = {name: f"{name}, no denoising" for name in ("paper-2025", "paper-2024")} | {
        base: "no denoising"
    }
    gains = pd.Series({name: lpips[without] - lpips[name] for name, without in undenoised.items()})
    low_gains = pd.Series(
        {name: low_lpips[without] - low_lpips[name] for name, without in undenoised.items()}
    )
    assert gains.max() - gains.min() < 0.01
    assert low_gains["paper-2025"] > 2 * low_gains.drop("paper-2025").max()
    assert psnr["alpha in whole octaves"] < psnr["alpha in 4 steps an octave"] < psnr[base]
    for values, best, worst in (
        (psnr, max, min),
        (low_psnr, max, min),
        (lpips, min, max),
        (low_lpips, min, max),
    ):
        kinds = values[["paper-2025", base, "paper-2024"]]
        assert (best(kinds), worst(kinds)) == (kinds.iloc[0], kinds.iloc[2])


def test_of_the_sets_of_weights_only_what_the_book_says_is_beyond_another_seed_of_training() -> None:
    folder = repository_root() / "data/results"
    raw = pd.read_csv(folder / "codec_choices.csv").set_index("choice")

    def farther_apart(measure: str, rate: float) -> set[str]:
        limit = beyond.chance_of_training(folder / "training_choices.csv", rate)[measure]
        values = raw[f"{measure} at {rate:g}"]
        pairs = combinations(("paper-2025", "independent", "paper-2024"), 2)
        return {f"{a}, {b}" for a, b in pairs if abs(values[a] - values[b]) > limit}

    assert farther_apart("lpips-alex", 0.1) == set()
    assert farther_apart("psnr", 0.1) == {"paper-2025, paper-2024", "independent, paper-2024"}
    for measure in ("psnr", "lpips-alex"):
        assert {"paper-2025, independent", "paper-2025, paper-2024"} <= farther_apart(measure, 0.05)


def stored_runs(config: str) -> pd.DataFrame:
    table = pd.read_csv(repository_root() / "data/results/training_choices.csv")
    return table[table.config == config]


def test_the_stored_trial_of_lambda_says_what_the_book_says() -> None:
    runs = stored_runs("cpu")
    seeds = runs[runs.variant == "as here"]
    table = runs[runs.seed == 0].set_index("variant")
    psnr, lpips = table["psnr at 0.1"], table["lpips-alex at 0.1"]
    evenly, untrained = "drawn evenly in lambda", "no first stage"
    assert pd.isna(table.loc[evenly, "psnr at 0.05"])
    others = psnr.drop([evenly, untrained])
    assert (psnr["as here"] - others).abs().max() < 0.22
    low, high = (seeds["psnr at 0.1"].agg(end) for end in ("min", "max"))
    assert max(psnr[evenly], psnr[untrained]) < low - (high - low)
    differences = lpips.drop([evenly, untrained]) - lpips["as here"]
    assert differences.abs().max() < seeds["lpips-alex at 0.1"].max() - seeds["lpips-alex at 0.1"].min()
    lowest, highest = table["lowest_bpp"], table["highest_bpp"]
    assert lowest[["gradient of L instead of log L", evenly]].min() > 4 * seeds["lowest_bpp"].max()
    declared = seeds["declared at 0.1"]
    assert declared.between(1.4, 1.7).all()
    assert lowest["as here"] <= seeds["lowest_bpp"].max() == seeds.set_index("seed")["lowest_bpp"][1]
    matched = seeds["lpips-alex at 0.1, t matched"]
    assert matched.max() - matched.min() < 0.01 < (seeds["lpips-alex at 0.1"] - matched).min()
    plane = "lambda itself as the plane"
    assert lowest[plane] < seeds["lowest_bpp"].min()
    assert highest[plane] > seeds["highest_bpp"].max()


def test_the_stored_trial_of_training_says_what_the_book_says() -> None:
    runs = stored_runs("trial")
    kinds = {name: rows for name, rows in runs.groupby("variant")}
    base, ships = kinds["as here"], kinds["independent as it ships"]
    declared, lpips = "declared at 0.1", "lpips-alex at 0.1"
    near = ("mean absolute error", "noise instead of rounding", "no gradient through the U-Net")
    for name in near:
        assert beyond.training_better(runs, name, 0.1) == "better in both measures"
        assert kinds[name][declared].max() < 1.35 < base[declared].min()
        assert len(kinds[name]) == len(base) == 2
    both = kinds["squared error and LPIPS"].set_index("seed")
    assert sorted(both[lpips] < base[lpips].min()) == [False, True]
    assert 0.9 < ships[declared].item() < 1.1
    by_gradient, told_itself = (
        kinds[name] for name in ("gradient of L instead of log L", "lambda / 20, of 1, 5, 10, 20")
    )
    assert by_gradient[declared].min() > 1.5 * base[declared].max()
    assert by_gradient[f"{lpips}, t matched"].max() < 0.25
    (outlier,) = told_itself.loc[told_itself[f"{lpips}, t matched"] > 0.25, "seed"]
    assert outlier == 0
    free = runs[
        (runs.variant != "gradient of L instead of log L")
        & ~runs.index.isin(told_itself.index[told_itself.seed == 0])
    ]
    matched = free[f"{lpips}, t matched"]
    assert matched.max() - matched.min() < 0.02
    assert base[lpips].min() > 1.5 * matched.max()
    latent = kinds["squared error of the latent"]
    rounded = runs[
        ~runs.variant.isin(
            ["tied, universal quantisation", "independent as it ships", latent.variant.iloc[0]]
        )
    ]
    assert latent["lpips-alex at 0.05"].max() < rounded["lpips-alex at 0.05"].min()
    assert latent[declared].max() < 1.2
    for name in ("eight crops a step", "1000 training steps"):
        more = kinds[name]
        assert len(more) == 2
        assert more[declared].min() > 2 * base[declared].max()
        assert abs(more[f"{lpips}, t matched"].mean() - base[f"{lpips}, t matched"].mean()) < 0.01
    four, one = kinds["drawn from 1, 5, 10, 20"], kinds["one lambda alone, 45"]
    assert four[lpips].max() < base[lpips].min()
    assert (one[f"{lpips}, t matched"].mean() - base[f"{lpips}, t matched"].mean()) == pytest.approx(
        0, abs=0.01
    )
    psnr = "psnr at 0.1, t matched"
    assert one[psnr].mean() - base[psnr].mean() < 0.3


def test_the_stored_trial_of_construction_says_what_the_book_says() -> None:
    runs = stored_runs("trial").set_index("variant")
    base, tied, universal = (
        runs.loc[name]
        for name in ("as here", "t tied to one step size for all channels", "tied, universal quantisation")
    )
    ships = (
        pd.read_csv(repository_root() / "data/results/codec_choices.csv")
        .set_index("choice")
        .loc["paper-2025"]
    )
    lpips, low_lpips, low_psnr = "lpips-alex at 0.1", "lpips-alex at 0.05", "psnr at 0.05"
    assert (tied[lpips] - base[f"{lpips}, t matched"].mean()).abs().max() < 0.01
    assert (universal[lpips].mean() - tied[lpips].mean()) == pytest.approx(0, abs=0.01)
    assert universal[low_lpips].max() < 0.8 * tied[low_lpips].min() < 0.8 * base[low_lpips].min()
    assert universal[low_psnr].min() > tied[low_psnr].max() + 3
    assert (universal[low_psnr] - ships[low_psnr]).abs().max() < 0.2
    assert (universal[low_lpips] - ships[low_lpips]).abs().max() < 0.02


def test_the_stored_priors_say_what_the_book_says() -> None:
    table = pd.read_csv(repository_root() / "data/results/entropy_models_other.csv")
    bpp = table.pivot(index="lambda", columns="prior", values="bpp")
    hyper = table.pivot(index="lambda", columns="prior", values="hyper_bpp")
    size = table.groupby("prior")["parameters"].first()
    assert size["lattice"] < size["transformer"] < size["wide lattice"]
    saved = 1 - bpp.div(bpp["lattice"], axis=0)
    assert (saved["transformer"] > 0).all()
    assert saved["transformer"].iloc[0] > 0.1 > 0.04 > saved["transformer"].iloc[-1]
    assert saved["wide lattice"].max() < 0.02
    told, untold = "hyperprior, told", "hyperprior"
    assert (hyper[told] < hyper[untold] / 2).all()
    assert bpp[told].iloc[0] < 0.95 * bpp[untold].iloc[0]
    for name in (told, untold):
        assert saved[name].loc[5:].between(0.004, 0.022).all()


def test_the_sets_of_weights_meet_where_the_book_says() -> None:
    means = summarise(records.read(repository_root() / "data/results/kodak_rd.csv"))
    value = means.pivot_table(index=["metric", "target_bpp"], columns="codec", values="value")
    ours = value["dfc-mini"]
    for other in ("dfc-mini:independent", "dfc-mini:paper-2024"):
        lpips, psnr = ours["lpips-alex"] / value[other]["lpips-alex"], ours["psnr"] - value[other]["psnr"]
        assert (lpips.loc[0.2:0.3] > 0.99).all()
        assert (psnr.loc[0.2:0.3].abs() < 0.1).all()
        assert (lpips.loc[:0.1] < 0.97).all()


def test_a_little_rate_is_worth_what_the_curve_says() -> None:
    table = pd.DataFrame(
        {
            "question": ["base", "gamma", "side information"],
            "rate": 0.1,
            "bpp at 0.1": [0.1, 0.102, 0.08],
        }
    )
    curve = pd.DataFrame(
        {"codec": "dfc-mini", "metric": "lpips-alex", "bpp": [0.05, 0.1, 0.2], "value": [0.3, 0.2, 0.1]}
    )
    apart, worth = beyond.rate_slack(table, curve)
    assert apart == pytest.approx(0.02)
    assert worth == pytest.approx(0.002)
