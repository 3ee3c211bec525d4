"""Who sees what: balance, sides, repeats, sentinels, and a study that is read as it was written."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_codec.errors import BadInputError, MissingDataError
from diffusion_codec.user_study import design, stimuli
from diffusion_codec.user_study.design import ORIGINAL, SENTINEL, STIMULI, Condition, Sessions, Study, Trial
from tests.user_study.studies import OURS, RIVAL, make_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, images=5)
    return folder


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    return design.load(folder)


def cell(trial: Trial) -> tuple[str, frozenset[Condition]]:
    return trial.original.image, frozenset({trial.a.condition, trial.b.condition})


def sessions(study: Study, count: int) -> list[tuple[Trial, ...]]:
    planned = Sessions(study)
    return [planned[number] for number in range(count)]


def test_every_photograph_and_pair_is_shown_equally_often_after_any_number_of_sessions(study: Study) -> None:
    shown: Counter[tuple[str, frozenset[Condition]]] = Counter()
    for session in sessions(study, 25):
        main = [cell(trial) for trial in session if trial.kind == "pair"]
        assert len(main) == len(set(main)) == study.main_trials
        shown.update(main)
        counts = [shown[image, frozenset(pair)] for image in study.images for pair in study.pairs]
        assert max(counts) - min(counts) <= 1
    assert len(shown) == len(study.images) * len(study.pairs)


def test_raters_who_come_together_see_the_same_sessions(study: Study) -> None:
    expected = sessions(study, 24)
    for _ in range(20):
        together = Sessions(study)
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(together.__getitem__, reversed(range(24)))) == expected[::-1]


def test_a_codec_is_on_either_side_equally_often_in_every_cell(study: Study) -> None:
    sides: Counter[tuple[str, frozenset[Condition], bool]] = Counter()
    for session in sessions(study, 50):
        sides.update(
            (*cell(trial), trial.a.condition.codec == OURS) for trial in session if trial.kind == "pair"
        )
    for image, pair, _ in list(sides):
        assert abs(sides[image, pair, True] - sides[image, pair, False]) <= 1


def test_sessions_have_their_repeats_with_sides_swapped_and_their_sentinels(study: Study) -> None:
    for session in sessions(study, 20):
        assert [trial.number for trial in session] == list(range(study.trials))
        repeats = [trial for trial in session if trial.kind == "repeat"]
        sentinels = [trial for trial in session if trial.kind == "sentinel"]
        assert (len(repeats), len(sentinels)) == (study.repeats, study.sentinels)
        for repeat in repeats:
            (first,) = [t for t in session if t.kind == "pair" and cell(t) == cell(repeat)]
            assert first.number < repeat.number
            assert (first.a, first.b) == (repeat.b, repeat.a)
        for sentinel in sentinels:
            assert {sentinel.a.condition.codec, sentinel.b.condition.codec} == {ORIGINAL, SENTINEL}
            assert sentinel.number > 0


def test_one_photograph_does_not_come_twice_running(tmp_path: Path) -> None:
    study = make_study(tmp_path, images=4, trials=8, repeats=0, sentinels=0)
    for session in sessions(study, 30):
        images = [trial.original.image for trial in session]
        assert all(a != b for a, b in pairwise(images))


def test_the_seed_decides_and_nothing_else(study: Study) -> None:
    assert sessions(study, 4) == sessions(study, 4)
    planned = Sessions(study)
    assert planned[3] == sessions(study, 4)[3]
    other = study.model_copy(update={"seed": 2})
    assert sessions(other, 4) != sessions(study, 4)
    assert other.id != study.id


def test_pictures_are_kept_without_loss_cut_alike_and_named_by_their_content(
    folder: Path, study: Study
) -> None:
    by_condition = {(s.image, s.condition): s for s in study.stimuli}
    assert len(by_condition) == len(study.images) * 5
    with Image.open(folder / "photographs" / "photo0.png") as photo:
        whole = np.array(photo)
    original = by_condition["photo0", Condition(codec=ORIGINAL)]
    with Image.open(folder / STIMULI / original.file) as shown:
        assert np.array_equal(np.array(shown.convert("RGB")), whole[:, 8:88])
    for stimulus in study.stimuli:
        assert (stimulus.width, stimulus.height) == (80, 64)
        assert (folder / STIMULI / stimulus.file).is_file()
        name = stimulus.condition.codec
        assert name not in stimulus.file
        if name in (OURS, RIVAL):
            assert stimulus.bpp == pytest.approx(stimulus.condition.target_bpp, abs=0.01)


def test_a_study_is_read_as_it_was_written(folder: Path, study: Study) -> None:
    design.save(study, folder)
    assert design.load(folder) == study
    assert len(study.id) == 12


def test_a_session_has_no_more_trials_than_there_are_pairs(tmp_path: Path) -> None:
    study = make_study(tmp_path, images=2, trials=100, repeats=1, sentinels=1)
    assert study.main_trials == 4
    with pytest.raises(ValueError, match="at most 2 repeats"):
        make_study(tmp_path, images=2, trials=100, repeats=3)
    with pytest.raises(ValueError, match="must be 1 to"):
        make_study(tmp_path, images=2, trials=2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stimuli": []}, "trials less"),
        ({"colour": "blue"}, "colour"),
        ({"trials": "many"}, "trials"),
        ({"schema_version": 2}, "schema_version"),
    ],
)
def test_a_damaged_study_is_refused_with_the_reason(
    tmp_path: Path, study: Study, change: dict, reason: str
) -> None:
    (tmp_path / design.FILE).write_text(json.dumps(study.model_dump(mode="json") | change))
    with pytest.raises(BadInputError, match=reason):
        design.load(tmp_path)


def test_a_picture_is_named_by_a_hash_and_by_nothing_that_leaves_its_folder(study: Study) -> None:
    fields = study.stimuli[0].model_dump() | {"file": "../../etc/passwd"}
    with pytest.raises(ValueError, match="file"):
        design.Stimulus.model_validate(fields)


def test_a_missing_study_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="study design"):
        design.load(tmp_path)


def test_pairs_are_those_of_the_codec_under_test_or_all() -> None:
    anchor, others = stimuli.conditions(OURS, ["x", "y"], 0.1, [1, 2])
    assert [other.target_bpp for other in others] == [0.1, 0.2, 0.1, 0.2]
    assert len(stimuli.pairs(anchor, others, every=False)) == 4
    assert len(stimuli.pairs(anchor, others, every=True)) == 10
    with pytest.raises(BadInputError, match="named once"):
        stimuli.conditions(OURS, [OURS], 0.1, [1])
