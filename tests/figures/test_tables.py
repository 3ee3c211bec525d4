import pandas as pd

from diffusion_codec.figures.tables import shown


def test_tables_have_no_index_and_the_asked_for_decimals() -> None:
    frame = pd.DataFrame({"t": [10.0], "step": [0.34049], "lpips": [None]}, index=["hidden"])
    html = shown(frame, 2, {"t": "{:.0f}"}).to_html()
    assert 'class="dataframe"' in html
    for text in (">10<", ">0.34<", ">–<"):
        assert text in html
    assert "hidden" not in html
