import pandas as pd

from diffusion_codec.figures.tables import shown


def test_tables_have_no_index_and_the_asked_for_decimals() -> None:
    frame = pd.DataFrame({"t": [10.0], "step": [0.34049], "lpips": [None]}, index=["hidden"])
    html = shown(frame, 2, {"t": ".0f"}).to_html()
    assert 'class="dataframe"' in html
    for text in (">10<", ">0.34<", ">–<"):
        assert text in html
    assert "hidden" not in html


def test_readers_meet_words_and_numbers_as_people_write_them() -> None:
    frame = pd.DataFrame(
        {
            "codec": ["avif"],
            "psnr": [24.14742],
            "bytes": [122724.0],
            "tied": [True],
            "change": [-0.5],
            "runs": [1234],
        }
    )
    html = shown(frame).to_html()
    for text in (
        ">AVIF<",
        ">PSNR (dB)<",
        ">24.15<",
        ">122\u202f724<",
        ">yes<",
        ">\u22120.500<",
        ">1\u202f234<",
    ):
        assert text in html
    assert html.count("text-align: right") == 4
