import numpy as np
import pandas as pd
import pytest

from diffusion_codec.audit import findings
from diffusion_codec.audit.findings import ORIGINAL, OWN, RIVALS
from diffusion_codec.fetch import repository_root

RATE = findings.CLAIM_RATE


def text_rows(right: dict[str, dict[float | None, int]], bpp: float = 1.0) -> pd.DataFrame:
    """Ten pictures of ten characters; what is not right was read as others, all with confidence."""
    rows = [
        {
            "codec": codec,
            "image": f"plate-{i}",
            "target_bpp": rate,
            "bpp": None if rate is None else bpp * rate,
            "right": count,
            "substituted": 10 - count,
            "inserted": 0,
            "missing": 0,
            "confident": 10 - count,
        }
        for codec, rates in right.items()
        for rate, count in rates.items()
        for i in range(10)
    ]
    return findings.prepared("text", pd.DataFrame(rows))


def test_shares_are_ratios_of_sums() -> None:
    rows = text_rows({OWN: {0.1: 7}})
    rows.loc[0, ["right", "missing", "substituted", "characters"]] = [27, 3, 0, 30]
    table = findings.curves("text", rows).set_index("share")
    assert table.loc["right", "value"] == pytest.approx((27 + 9 * 7) / (30 + 90))
    assert table.loc["missing", "value"] == pytest.approx(3 / 120)
    assert table.loc["right", "low"] <= table.loc["right", "value"] <= table.loc["right", "high"]
    assert table.loc["right", "images"] == 10


@pytest.mark.parametrize("spent", [1.5, 0.5])
def test_a_codec_without_files_of_that_size_is_not_compared(spent: float) -> None:
    rows = pd.concat([text_rows({OWN: {0.1: 9, 0.2: 10}}), text_rows({"jpeg": {0.1: 5, 0.2: 6}}, bpp=spent)])
    table = findings.curves("text", rows)
    wide = findings.at_equal_rates(table, "right", [OWN, "jpeg"])
    assert wide[OWN].tolist() == [0.9, 1.0]
    assert wide["jpeg"].isna().all()
    assert findings.equal_rates(table, [OWN]) == [0.1, 0.2]
    assert findings.equal_rates(table, [OWN, "jpeg"]) == []


def test_pictures_without_a_file_lower_what_was_reached() -> None:
    rows = text_rows({OWN: {0.1: 9}})
    rows.loc[:3, ["right", "characters"]] = None
    table = findings.curves("text", rows)
    assert table["images"].unique() == [6]
    assert table["reached"].iloc[0] == pytest.approx(0.6)


def test_the_rate_that_keeps_is_the_least_from_which_on_all_is_kept() -> None:
    rows = text_rows({ORIGINAL: {None: 10}, "a": {0.1: 10, 0.2: 9, 0.4: 10, 0.8: 10}, "b": {0.1: 9, 0.2: 9}})
    table = findings.curves("text", rows)
    assert findings.rate_that_keeps(table, "a") == 0.4
    assert findings.rate_that_keeps(table, "b") is None
    assert findings.rate_that_keeps(table, "b", kept=0.9) == 0.1


def test_what_the_reader_misses_in_the_original_is_no_codec_s_fault() -> None:
    table = findings.curves("text", text_rows({ORIGINAL: {None: 8}, "a": {0.1: 8}}))
    assert findings.rate_that_keeps(table, "a") == 0.1


def test_kinds_of_text_are_told_apart_by_name() -> None:
    rows = text_rows({ORIGINAL: {None: 10}, OWN: {0.1: 10}})
    rows["image"] = rows["image"].str.replace("plate-0", "page-sans-9")
    rows["image"] = rows["image"].str.replace("plate-1", "page-sans-16")
    kept = findings.kept_table(rows, [OWN])
    assert kept["text"].str.split().str[0].tolist() == ["small", "ordinary", "plates"]
    assert kept[OWN].tolist() == [0.1, 0.1, 0.1]


def test_faces_and_patterns_get_the_columns_their_shares_need() -> None:
    face = pd.DataFrame([{"similarity": 0.9, "false-matches": 1, "strangers": 4}, {"similarity": 0.2}])
    assert findings.prepared("faces", face)["not-recognised"].tolist() == [0, 1]
    chart = pd.DataFrame([{"objects": 10, "counted": 12, "found": 9, "invented": 3}])
    row = findings.prepared("patterns", chart).iloc[0]
    assert row[["missing", "invented", "miscounted", "objects"]].tolist() == [0.1, 0.3, 0.2, 1]
    for part, rows in (("faces", face), ("patterns", chart)):
        columns = findings.prepared(part, rows).columns
        assert all({share.part, share.whole} <= set(columns) for share in findings.SHARES[part])


def test_where_it_invents_more_than_a_rival() -> None:
    right = {OWN: {0.1: 5, 0.2: 9}} | {codec: {0.1: 9, 0.2: 9} for codec in RIVALS}
    table = findings.curves("text", text_rows(right))
    assert findings.where_more(table, "confident") == {rival: [0.1] for rival in RIVALS}


def details(own: float, rival: float) -> dict[str, pd.DataFrame]:
    """Three audits in which these shares of the details are wrong."""
    texts = text_rows({OWN: {RATE: round(10 - 10 * own)}, "avif": {RATE: round(10 - 10 * rival)}})
    wrong = [(OWN, own), ("avif", rival)]
    faces = [
        {"codec": codec, "image": f"f{i}", "target_bpp": RATE, "bpp": RATE, "similarity": 1.0, "strangers": 10,
         "false-matches": 10 * share}
        for codec, share in wrong for i in range(8)
    ]  # fmt: skip
    charts = [
        {"codec": codec, "image": f"c{i}", "target_bpp": RATE, "bpp": RATE, "objects": 10, "counted": 10, "found": 5,
         "invented": 10 * share}
        for codec, share in wrong for i in range(8)
    ]  # fmt: skip
    tables = {"faces": pd.DataFrame(faces), "patterns": pd.DataFrame(charts)}
    return {"text": texts} | {part: findings.prepared(part, table) for part, table in tables.items()}


def test_of_the_legible_characters_some_are_wrong() -> None:
    rows = text_rows({OWN: {0.1: 8, 0.2: 10}, "avif": {0.1: 10, 0.2: 6}, "jpeg": {0.1: 1}})
    table = findings.wrong_among_legible(rows, [OWN, "avif"])
    assert table[OWN].tolist() == pytest.approx([0.2, 0.0])
    assert table["avif"].tolist() == pytest.approx([0.0, 0.4])
    assert table[f"{OWN} count"].tolist() == [20, 0]
    told = findings.legible_table(table).set_index("bits per pixel")
    assert told.loc["0.1"].tolist() == ["20.00 % (20)", "0.00 % (0)"]
    assert told.loc["0.2"].tolist() == ["0.00 % (0)", "40.00 % (40)"]


def test_few_characters_are_counted_not_told_in_per_cent() -> None:
    rows = text_rows({ORIGINAL: {None: 8}, OWN: {0.1: 1, 0.2: 5, 0.3: 6}, "avif": {0.1: 2, 0.2: 7, 0.3: 8}})
    said = findings.few_characters_sentence(rows)
    assert "Only 80 characters" in said
    assert "more than 1 %" in said
    assert "this codec misses 20 or more of them at every rate, AVIF 10 at most" in said
    assert findings.few_characters_sentence(rows[rows["codec"] == OWN]) == ""


def test_intervals_hold_the_true_mean_as_often_as_they_say() -> None:
    """Few pictures with skewed errors: percentiles of a bootstrap would hold it in nine of ten."""
    rng = np.random.default_rng(0)

    def drawn(pictures: int) -> findings.Excess:
        whole, its = rng.uniform(5, 15, (2, pictures))
        return findings.excess(
            whole * rng.gamma(2, 0.1, pictures), whole, its * rng.gamma(2, 0.05, pictures), its
        )

    intervals = [findings.mean_interval([drawn(n) for n in (12, 9, 10)]) for _ in range(2000)]
    held = np.mean([low < 0.1 < high for low, high in intervals])
    assert 0.93 < held < 0.97


def test_the_evidence_is_the_mean_excess_over_avif() -> None:
    found = findings.evidence(details(own=0.4, rival=0.1))
    assert found is not None
    assert found.value == pytest.approx(0.3)
    assert found.low == pytest.approx(0.3)
    assert found.high == pytest.approx(0.3)
    assert findings.evidence(details(own=0.1, rival=0.4)).value == pytest.approx(-0.3)
    assert set(found.files) == {"audit_text.csv", "audit_faces.csv", "audit_patterns.csv"}


def test_without_all_three_audits_at_the_rate_there_is_no_evidence() -> None:
    rows = details(0.4, 0.1)
    assert findings.evidence({part: rows[part] for part in ("text", "faces")}) is None
    rows["faces"]["target_bpp"] = 0.2
    assert findings.evidence(rows) is None


def test_the_denoiser_invents_hardly_any_of_the_objects_that_are_not_there() -> None:
    table = findings.curves(
        "patterns", findings.load("patterns", repository_root() / "data/results/audit_patterns.csv")
    )
    at = table[(table.share == "invented") & (table.target_bpp == findings.CLAIM_RATE)]
    value = at.set_index("codec")["value"]
    assert abs(value[OWN] - value[findings.PLAIN]) < 0.005 < value[findings.PLAIN]
