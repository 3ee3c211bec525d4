"""Published facts: each with a source and a protocol, and no axis with two protocols."""

import pandas as pd
import pytest

from diffusion_codec import metrics
from diffusion_codec.evaluation import published
from diffusion_codec.evaluation.published import PublishedError, one_protocol
from diffusion_codec.evaluation.tables import NotComparableError
from diffusion_codec.figures import published as drawn
from diffusion_codec.figures import rate_distortion


def test_every_number_has_source_and_protocol():
    table = published.read()
    assert len(table) > 300
    assert table.drop(columns="bpp").notna().all(axis=None)
    assert set(table.loc[table["bpp"].isna(), "codec"]) == {"ceiling: autoencoder of Stable Diffusion 2.1"}
    for source in published.sources().sources.values():
        assert any(character.isdigit() for character in source.citation)
        assert source.repository.startswith("https://")
    ceiling = published.of("kodak", "lpips-alex", "diffeic-patches").set_index("codec")["value"]
    assert ceiling["ceiling: autoencoder of Stable Diffusion 2.1"] == 0.0726


def test_one_axis_one_protocol():
    table = published.read()
    for (_, metric, _), rows in table.groupby(["dataset", "metric", "protocol"]):
        assert one_protocol(rows, str(metric))
    mixed = table[(table["dataset"] == "clic2020") & (table["metric"] == "fid")]
    with pytest.raises(NotComparableError, match="one protocol"):
        drawn.panels([mixed], "fid", ["both"])
    apart = [mixed[mixed["protocol"] == name] for name in sorted(set(mixed["protocol"]))]
    figure = drawn.panels(apart, "fid", ["a", "b"])
    assert len(figure.axes) == 2


def test_our_own_figures_refuse_two_protocols():
    rows = [
        {"codec": "jpeg", "target_bpp": 0.1 * n, "bpp": 0.1 * n, "metric": "psnr", "value": 20.0 + n, "low": 19.0 + n,
         "high": 21.0 + n, "missing": 0, "dataset": "kodak", "protocol": "p"} for n in (1, 2, 3)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    rate_distortion.curves(table, ["psnr"])
    table.loc[1, "protocol"] = "q"
    with pytest.raises(NotComparableError, match="one protocol"):
        rate_distortion.curves(table, ["psnr"])


def test_what_is_measured_alike_counts_as_ours():
    ours = pd.DataFrame({"metric": ["psnr"], "protocol": [metrics.get("psnr").protocol]})
    theirs = published.of("kodak", "psnr", "rgb-mean")
    assert one_protocol(pd.concat([ours, theirs]), "psnr") == metrics.get("psnr").protocol
    others = published.of("kodak", "psnr", "diffeic-patches")
    with pytest.raises(NotComparableError):
        one_protocol(pd.concat([ours, others]), "psnr")


def test_agreement_interpolates_and_never_extrapolates():
    protocol = metrics.get("psnr").protocol
    facts = published.of("kodak", "psnr", "rgb-mean")
    jpeg = facts[facts["codec"] == "JPEG"]
    inside = jpeg[jpeg["bpp"].between(0.2, 0.5)]
    ours = pd.DataFrame(
        {"codec": "jpeg", "metric": "psnr", "bpp": [0.2, 0.5], "value": [25.0, 25.0], "protocol": protocol}
    )
    found = published.agreement(ours)
    assert len(found) == len(inside) > 0
    assert found["difference"].to_list() == pytest.approx((25.0 - inside["value"]).to_list())


def test_a_number_without_a_known_source_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("dataset,metric,protocol,codec,bpp,value,source\nkodak,psnr,rgb-mean,X,0.1,30,hearsay\n")
    with pytest.raises(PublishedError, match="hearsay"):
        published.read(path)
    path.write_text("dataset,metric\nkodak,psnr\n")
    with pytest.raises(PublishedError, match="columns"):
        published.read(path)
    (tmp_path / "s.toml").write_text('[protocols.a]\ntext = "t"\nnote = "n"\n')
    with pytest.raises(PublishedError, match="note"):
        published.read_sources(tmp_path / "s.toml")
