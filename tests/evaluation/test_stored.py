"""The stored results are whole, belong to the code and weights that are shipped, and spare the book all measuring."""

import ast
import json

import pytest
import torch
import yaml

from diffusion_codec.backbone import Backbone, model
from diffusion_codec.book.paths import repository_root
from diffusion_codec.codec import DEFAULT_STEPS
from diffusion_codec.evaluation import codecs, records, study
from diffusion_codec.evaluation.study import Study, steps_codecs

ROOT = repository_root()
STORED = ROOT / "data" / "results" / "kodak_rd.csv"


def defaults() -> dict:
    """What notebook 03 runs with: its cell of parameters, with params/ laid over it."""
    notebook = json.loads((ROOT / "notebooks" / "03_rate_distortion.ipynb").read_text(encoding="utf-8"))
    cell = next(c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", []))
    values = {
        node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse("".join(cell["source"])).body
    }
    chosen = (ROOT / "notebooks" / "params" / "03_rate_distortion.yaml").read_text(encoding="utf-8")
    return values | (yaml.safe_load(chosen) or {})


def notebook_studies() -> list[Study]:
    p = defaults()
    chosen = study.stored_codecs(p["dataset"], STORED) if p["codecs"] == "standard" else p["codecs"]
    return [
        Study.of(p["dataset"], p["images"], p["bitrates"], chosen, p["metrics"]),
        Study.of(
            p["dataset"],
            p["steps_images"],
            p["steps_bitrates"],
            steps_codecs("mini", p["steps"]),
            p["metrics"],
        ),
    ]


def test_what_make_results_measures_is_what_the_book_shows():
    standard = study.standard("kodak")
    for shown, made in zip(notebook_studies(), standard[:2], strict=True):
        assert shown.images == made.images
        assert set(shown.bitrates) <= set(made.bitrates)
        assert set(shown.codecs) <= {*made.codecs, *standard[0].codecs}
        assert set(shown.metrics) <= set(made.metrics)


@pytest.mark.parametrize("dataset", ["kodak", "coco-val2017-128"])
def test_stored_results_are_those_of_the_shipped_weights(dataset: str):
    results = records.read(study.stored_path(dataset))
    own = codecs.get(["dfc-mini", "dfc-mini@0", "ceiling-mini"])
    for codec in own:
        made = {
            (info.version, info.settings)
            for record in results.records
            if record.codec == codec.name
            for info in [results.run(record).codecs[codec.name]]
        }
        assert made == {(codec.version, codec.settings)}, (
            f"run `make results DATASET={dataset}` and commit data/results/"
        )


def test_every_photograph_was_measured_at_every_rate_by_every_codec():
    results = records.read(STORED)
    full = notebook_studies()[0]
    # chapter 3 leaves out what is not whole, so the list is not taken from there
    assert set(full.codecs) == set(study.STANDARD_CODECS)
    there = {(r.codec, r.target_bpp, r.metric, r.image) for r in results.records if r.value is not None}
    images = {record.image for record in results.records}
    assert len(images) == 24
    rates = {codec: (None,) if codec.startswith("ceiling") else full.bitrates for codec in full.codecs}
    missing = [
        point
        for codec in full.codecs
        for rate in rates[codec]
        for metric in full.metrics
        for image in images
        if (point := (codec, rate, metric, image)) not in there
    ]
    assert missing == []


@pytest.mark.parametrize(("dataset", "which"), [("kodak", 2), ("kodak", 3), ("coco-val2017-128", 0)])
def test_other_studies_are_stored_whole_or_their_figures_have_gaps(dataset: str, which: int):
    results, made = records.read(study.stored_path(dataset)), study.standard(dataset)[which]
    there = {(r.codec, r.target_bpp, r.metric, r.image) for r in results.records if r.value is not None}
    images = sorted({record.image for record in results.records})[: made.images]
    assert len(images) == made.images
    missing = [
        point
        for codec in codecs.get(made.codecs)
        for rate in (made.bitrates if codec.has_rate else (None,))
        for metric in made.metrics
        for image in images
        if (point := (codec.name, rate, metric, image)) not in there
    ]
    assert missing == [], f"run `make results DATASET={dataset}` and commit data/results/"


def test_the_backbone_has_one_name_whatever_the_machine_multiplies(monkeypatch: pytest.MonkeyPatch):
    names = set()
    for bfloat16 in (True, False):
        monkeypatch.setattr(model, "multiplies_bfloat16", lambda _, found=bfloat16: found)
        backbone = Backbone.from_pretrained("mini", run=codecs.RUN)
        assert (next(backbone.vae.decoder.parameters()).dtype == torch.bfloat16) is bfloat16
        names.add(backbone.fingerprint)
    assert len(names) == 1


def test_rates_are_bytes_and_bytes_are_ledgers():
    for record in records.read(STORED).records:
        if record.bytes is not None:
            assert record.bpp == 8 * record.bytes / (record.width * record.height)
            assert not record.ledger or sum(record.ledger.values()) == record.bytes
        if record.codec == "dfc-mini":
            assert record.steps == DEFAULT_STEPS
