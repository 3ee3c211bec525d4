"""Operations are those of the real shapes; hours follow from them."""

import csv

import pytest

from diffusion_codec import fetch
from diffusion_codec.evaluation import cost


def test_operations_grow_with_the_picture_and_count_both_halves_of_the_work() -> None:
    small, large = (cost.operations("tiny-1", side, side) for side in (64, 128))
    for stage in ("E", "one denoising step", "D"):
        assert 3.9 < large[stage] / small[stage] < 6  # four times the area; attention grows faster


def test_the_stored_plan_is_what_the_stored_operations_give() -> None:
    folder = fetch.repository_root() / "data" / "results"
    with (folder / "cost_stages.csv").open() as file:
        stages = {
            row["picture"]: {k: float(v) for k, v in row.items() if k != "picture"}
            for row in csv.DictReader(file)
        }
    with (folder / "cost_plan.csv").open() as file:
        plan = list(csv.DictReader(file))
    crop = stages["256 x 256"]
    step = crop["E"] + 2 * (crop["one denoising step"] + crop["D"])
    trained = (cost.STEPS - cost.RATE_ONLY_STEPS) * cost.BATCH * step / 1e6
    assert float(plan[1]["exa-operations"]) == pytest.approx(trained, rel=2e-3)
    coded = cost.IMAGES * cost.RATES * stages["512 x 512"]["there and back, 3 steps"] / 1e6
    assert float(plan[2]["exa-operations"]) == pytest.approx(coded, rel=2e-3)
    hours = float(plan[-1]["exa-operations"]) * 1e18 / (cost.PEAK * cost.UTILISATION) / 3600
    assert float(plan[-1]["hours, 1 GPU"]) == pytest.approx(hours, abs=0.06)
    assert sum(float(row["exa-operations"]) for row in plan[:-1]) == pytest.approx(
        float(plan[-1]["exa-operations"]), abs=2e-3
    )
