"""The ledger: verdicts follow from numbers, numbers from files, and files from measurements."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from diffusion_codec import bitstream
from diffusion_codec.evaluation import claims, evidence, seal
from diffusion_codec.evaluation.claims import Bound, ClaimsError, Evidence
from tests.tiny import tiny_codec

TOML = """
[C2]
claim = "a frozen backbone suffices"
quantity = "tensors that changed"
replicated = { at_most = 0 }
partly = { at_most = 2 }
ours = 0
verdict = "replicated"
tolerance = 0.5
figure = "f"
notebook = "n"

[C4]
claim = "users prefer it"
quantity = "share of votes"
replicated = { at_least = 0.5 }
tolerance = 0.05
figure = "f"
notebook = "n"
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    (tmp_path / "claims.toml").write_text(TOML)
    claims.write_evidence("C2", found(0), tmp_path / "results")
    seal.write(tmp_path / "results")
    return tmp_path


def found(value: float, **more) -> Evidence:
    return Evidence(value=value, protocol="by hand", files=("claims/C2.json",), made="make evidence", **more)


def read(house: Path) -> dict[str, claims.Entry]:
    return {entry.id: entry for entry in claims.ledger(house / "claims.toml", house / "results")}


def put(house: Path, name: str, evidence_: Evidence) -> None:
    claims.write_evidence(name, evidence_, house / "results")
    seal.write(house / "results")


def test_numbers_decide(house):
    entries = read(house)
    assert (entries["C2"].verdict, entries["C2"].mark) == ("replicated", "[Re]")
    assert (entries["C4"].verdict, entries["C4"].mark) == ("not tested yet", "")
    for value, verdict in ((1, "partly"), (3, "not replicated")):
        put(house, "C2", found(value))
        assert read(house)["C2"].verdict == verdict
    put(house, "C2", found(0, not_testable="another machine"))
    assert read(house)["C2"].verdict == "not testable here"


def test_what_leaves_its_tolerance_is_a_problem_and_can_be_accepted(house):
    assert [entry.problem for entry in read(house).values()] == [None, None]
    put(house, "C2", found(1))
    put(house, "C4", found(0.625))
    problems = [entry.problem for entry in read(house).values()]
    assert "1 was measured, the ledger says 0" in problems[0]
    assert "does not know it yet" in problems[1]
    changed = claims.accept(house / "claims.toml", list(read(house).values()))
    assert changed == [
        "C2: 0.0 -> 1.0, replicated -> partly",
        "C4: None -> 0.625, not tested yet -> replicated",
    ]
    assert [entry.problem for entry in read(house).values()] == [None, None]
    assert read(house)["C2"].claim.partly == Bound(at_most=2)  # bounds are not moved by results
    (house / "results" / "claims" / "C4.json").unlink()
    seal.write(house / "results")
    assert "evidence is gone" in read(house)["C4"].problem


def test_a_verdict_that_no_longer_follows_is_a_problem_within_the_tolerance_too(house):
    put(house, "C2", found(0.25))
    assert read(house)["C2"].problem == "C2: 0.25 is partly, the ledger says replicated"


def test_command_fails_where_a_number_left_its_tolerance(house, monkeypatch):
    monkeypatch.setattr(claims, "ledger_path", lambda: house / "claims.toml")
    monkeypatch.setattr(seal, "results_folder", lambda: house / "results")
    done = CliRunner().invoke(claims.app, [])
    assert done.exit_code == 0, done.output
    assert "replicated" in done.output
    put(house, "C2", found(1))
    assert CliRunner().invoke(claims.app, []).exit_code == 1
    assert CliRunner().invoke(claims.app, ["--accept"]).exit_code == 0
    path = house / "results" / "claims" / "C2.json"
    path.write_text(path.read_text().replace('"value": 1.0', '"value": 0.0'))
    failed = CliRunner().invoke(claims.app, [])
    assert failed.exit_code == 1
    assert "changed since it was measured" in failed.output


def test_a_tampered_missing_or_unknown_result_is_named(house):
    results = house / "results"
    (results / ".DS_Store").write_bytes(b"left by a file manager")
    assert seal.verify(results) == 1
    (results / "new.csv").write_text("1")
    with pytest.raises(seal.SealError, match=r"new\.csv has no hash"):
        seal.verify(results)
    seal.write(results)
    (results / "new.csv").write_text("2")
    with pytest.raises(seal.SealError, match=r"new\.csv was changed"):
        seal.verify(results)
    (results / "new.csv").unlink()
    with pytest.raises(seal.SealError, match=r"new\.csv is gone"):
        seal.verify(results)
    (results / seal.SUMS).unlink()
    with pytest.raises(seal.SealError, match="make seal"):
        seal.verify(results)


def test_a_ledger_with_unknown_keys_or_damaged_evidence_is_refused(house):
    path = house / "claims.toml"
    path.write_text(TOML.replace("tolerance = 0.5", "tolerance = 0.5\nslack = 1"))
    with pytest.raises(ClaimsError, match="slack"):
        claims.read_claims(path)
    path.write_text(TOML)
    (house / "results" / "claims" / "C4.json").write_text('{"value": "much"}')
    seal.write(house / "results")
    with pytest.raises(ClaimsError, match=r"C4\.json"):
        read(house)


def test_realism_counts_rates_at_which_the_intervals_are_apart(tmp_path):
    def row(codec, rate, value, width=0.001):
        return {
            "codec": codec, "target_bpp": rate, "bpp": rate, "metric": "kid-packaged", "value": value,
            "low": value - width, "high": value + width, "above": value - 0.01, "above_low": value - 0.0102,
            "above_high": value - 0.0098, "images": 8, "patches": 64, "dataset": "d", "protocol": "p",
        }  # fmt: skip

    rows = [
        row("dfc-mini", 0.1, 0.01),
        row("avif", 0.1, 0.02),
        row("vvc", 0.1, 0.03),
        row("ceiling-mini", None, 0),
    ]
    rows += [row("dfc-mini", 0.2, 0.01), row("avif", 0.2, 0.0105)]
    rows += [row("dfc-mini", 0.05, 0.01), row("avif", 0.05, 0.0) | {"bpp": 0.07}]
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "d_realism.csv", index=False)
    assert claims.realism_won(table, "kid-packaged") == {0.1: True, 0.2: False}
    contests = claims.kid_contests(table).set_index("bits per pixel")
    assert contests["apart"].to_dict() == {"0.1": "yes", "0.2": "no"}
    assert contests["rival"].to_dict() == {"0.1": "AVIF", "0.2": "AVIF"}
    assert contests["above by"]["0.2"] == "0.5 (0.3–\u20600.7)"
    assert contests["data set"]["0.2"] == "d"
    found = claims.realism_ratio(tmp_path)
    assert found.value == 0.5
    assert found.files == ("d_realism.csv",)
    none = table.assign(dataset="e", high=table["high"] + 1)
    none.to_csv(tmp_path / "e_realism.csv", index=False)
    both = claims.realism_ratio(tmp_path)
    assert both.value == 0.25
    assert "1 of 2 rates on 8 photographs of d (against at 0.1: avif vvc, at 0.2: avif)" in both.protocol
    assert "0 of 2 rates on 8 photographs of e" in both.protocol
    assert claims.realism_ratio(tmp_path / "nowhere") is None


def test_the_stand_ins_time_decides_nothing(tmp_path):
    about = {"backbone": "mini", "device": "cpu", "machine": "m", "steps": 3, "repeats": 5}
    bench = {"about": about, "measurements": [{"width": 8, "height": 8, "decompress": {"total": 0.5}}]}
    (tmp_path / "bench.json").write_text(json.dumps(bench))
    assert claims.decoding_seconds(tmp_path).not_testable
    bench["about"] |= {"backbone": "stable-diffusion-v2-1", "device": "cuda"}
    (tmp_path / "bench.json").write_text(json.dumps(bench))
    assert not claims.decoding_seconds(tmp_path).not_testable


def test_rates_over_lambda():
    table = pd.DataFrame(
        {
            "image": ["a"] * 3 + ["b"] * 3,
            "lambda_": [1, 2, 4] * 2,
            "bytes": [10, 20, 30, 10, 30, 29],
            "bpp": [0.1] * 6,
        }
    )
    said = evidence.rates_over_lambda(table, "d")
    assert said.value == 0.75
    assert "3.00 times" in said.protocol


@pytest.mark.parametrize(("steps", "share"), [(3, 0.5), (200, 0.0)])
def test_few_steps_and_a_short_way_are_asked_at_each_rate(tmp_path, monkeypatch, steps, share):
    tried = [
        SimpleNamespace(
            metric="lpips-alex", codec="dfc-mini@1", target_bpp=rate, steps=count, image="a", value=value
        )
        for rate in claims.STEPS_BITRATES
        for count, value in ((1, 0.3), (steps, 0.2))
    ]
    (tmp_path / "kodak_rd.csv").write_text("")
    monkeypatch.setattr(claims.records, "read", lambda path: tried)
    monkeypatch.setattr(claims, "current", lambda results: results)
    assert claims.fewest_steps(tmp_path) is None
    (tmp_path / "claims").mkdir()
    way = "image,target_bpp,bpp,timestep\na,0.05,0.05,180\na,0.1,0.1,60\nb,0.05,0.05,90\nb,0.1,0.1,40\n"
    (tmp_path / "claims" / "C1.csv").write_text(way)
    said = claims.fewest_steps(tmp_path)
    assert said.value == share
    assert "135 at 0.05, 50 at 0.1" in said.protocol


def test_the_way_is_that_of_real_files(tmp_path):
    codec = tiny_codec(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    table = evidence.way_travelled(codec, {"noise": pixels}, [8.0, 4.0])
    assert table.columns.tolist() == ["image", "target_bpp", "bpp", "timestep"]
    assert (table.bpp <= table.target_bpp).all()
    file = codec.compress_to_size(pixels, int(8.0 * 64 * 64 / 8))
    assert table.timestep[0] == bitstream.read(file.data).header.timestep


def test_noise_like_fine_steps_only():
    import torch

    latents = [torch.randn(4, 64, 64, generator=torch.Generator().manual_seed(i)) * 0.7 for i in range(2)]
    said, statistics = evidence.noise_like(latents, "d")
    assert 0.5 <= said.value < 3  # of a Gaussian the error is uniform while the step is well below its spread
    assert set(statistics["kind"]) == {"rounding", "dithered", "gaussian"}


def test_the_stored_ledger_is_whole_and_in_step():
    entries = claims.ledger()
    assert [entry.id for entry in entries] == [f"C{number}" for number in range(1, 10)]
    assert [entry.problem for entry in entries if entry.problem] == [], "run `make claims`"
    shown = claims.table(entries)
    assert (shown.loc[shown["ours"].notna(), "protocol"] != "").all()
    assert not np.isinf(shown["ours"].dropna().astype(float)).any()
