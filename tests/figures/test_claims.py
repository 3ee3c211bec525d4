"""The ledger on a page: every claim with its verdict to filter by, and links to its evidence."""

import re

from diffusion_codec.evaluation.claims import Bound, Claim, Entry, Evidence
from diffusion_codec.figures import claims


def entry(name: str, value: float | None, not_testable: str = "") -> Entry:
    claim = Claim(
        claim="fewer <steps>", quantity="share", replicated=Bound(at_most=0.1), tolerance=0.01,
        not_testable=not_testable, figure="03/steps.svg", notebook="03_rate",
    )  # fmt: skip
    found = (
        None
        if value is None
        else Evidence(value=value, protocol="p", files=("claims/a.json",), made="make it")
    )
    return Entry(name, claim, found)


def test_rows_say_their_verdict_and_link_to_figure_page_and_data() -> None:
    entries = [entry("C1", 0.05), entry("C2", 0.5), entry("C3", 0.5, "no GPU"), entry("C4", None)]
    made = claims.ledger(entries, {"03/steps.svg": "03_rate.html#steps"}, "../evidence/")
    rows = re.findall(r'<tr data-verdict="([^"]+)" data-testable="([^"]+)">', made.markup)
    assert rows == [
        ("replicated", "yes"), ("not replicated", "yes"), ("not testable here", "no"), ("not tested yet", "yes"),
    ]  # fmt: skip
    offered = re.findall(r'<option value="([^"]*)">', made.markup)
    assert offered == [
        "",
        "replicated",
        "not replicated",
        "not testable here",
        "not tested yet",
        "",
        "yes",
        "no",
    ]
    assert "4 of 4 claims shown" in made.markup
    assert "fewer &lt;steps&gt;" in made.markup
    for address in ("03_rate.html#steps", "03_rate.html", "../evidence/claims/a.json"):
        assert f'href="{address}"' in made.markup
    assert "C4 not tested yet" in made.text
