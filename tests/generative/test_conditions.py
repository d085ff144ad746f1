"""Conditions: scalers by their formulae, found on the training records alone; bad cells are told with their line."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from deepssim.errors import MetricError, UsageError
from deepssim.generative.data.conditions import PUBLISHED_VARIABLES, ConditionSpec, Variable, conditioning_name, fit
from deepssim.generative.data.records import Record


def records(**cells: list[str]) -> list[Record]:
    rows = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
    return [Record(f"p{i}", Path("p.png"), "train", variables=row, line=i + 2) for i, row in enumerate(rows)]


def refused(call, *arguments, **options) -> str:
    with pytest.raises(UsageError) as caught:
        call(*arguments, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_the_published_variables_are_taken_as_they_are_in_their_order():
    cells = {name: [str(i + 0.25), str(i)] for i, name in enumerate(PUBLISHED_VARIABLES)}
    spec = fit(records(**dict(reversed(cells.items()))), "variables")
    assert spec.dim == 6
    found = spec.arrays(records(**cells))
    assert found.dtype == np.float32
    assert found.shape == (2, 1, 6)
    np.testing.assert_array_equal(found[0, 0], np.arange(6) + 0.25)


@pytest.mark.parametrize("scaler", ["none", "standard", "min-max"])
def test_scalers_are_their_formulae_over_the_training_records(scaler):
    ages = np.array([63.5, 20, 41, 90])
    train, other = records(age=list(map(str, ages))), records(age=["100"])
    divided = {"none": (0, 1), "standard": (ages.mean(), ages.std()), "min-max": (20, 70)}[scaler]
    spec = fit(train, "variables", ["age"], scaler)
    np.testing.assert_allclose(spec.arrays(train)[:, 0, 0], (ages - divided[0]) / divided[1], rtol=1e-6)
    np.testing.assert_allclose(spec.arrays(other)[:, 0, 0], (100 - divided[0]) / divided[1], rtol=1e-6)


@pytest.mark.parametrize("scaler", ["standard", "min-max"])
def test_a_constant_column_becomes_zero(scaler):
    same = records(age=["0.1", "0.1", "0.1"])
    assert np.abs(fit(same, "variables", ["age"], scaler).arrays(same)).max() < 1e-7


def test_categories_are_spread_evenly_from_zero_to_one():
    some = records(sequence=["T2", "PD", "T1", "T2"], site=["A"] * 4)
    spec = fit(some, "variables", ["sequence", "site"], "standard")
    assert spec.arrays(some)[:, 0].tolist() == [[1, 0], [0, 0], [0.5, 0], [1, 0]]
    text = refused(spec.arrays, records(sequence=["T1", "FLAIR", ""], site=["A"] * 3))
    assert "2 faults: line 3: sequence is 'FLAIR', not one of the training's 'PD', 'T1', 'T2'; line 4" in text


def test_cells_that_are_no_finite_numbers_are_told_with_line_and_column():
    some = records(age=["1", "nan", "", "inf", "1e999", "old", "3,5", "1_0"])
    text = refused(fit, some, "variables", ["age"])
    assert "7 faults: line 3: age is 'nan', no finite number; line 4: age is empty; line 5: age is 'inf'" in text
    assert "line 6: age is '1e999'" in text
    assert "and 2 more" in text
    spec = ConditionSpec("variables", 1, (Variable("age"),))
    assert "line 8: age is '3,5': write numbers with a point" in refused(spec.arrays, some[6:])


def test_decimal_commas_and_gaps_are_no_categories():
    assert "write numbers with a point" in refused(fit, records(age=["3,5", "4,5"]), "variables", ["age"])
    assert "line 3: sex is empty" in refused(fit, records(sex=["M", ""]), "variables", ["sex"])
    names = records(name=[f"name {i}" for i in range(101)])
    assert "101 different texts" in refused(fit, names, "variables", ["name"])


def test_columns_that_are_not_there_are_all_named():
    text = refused(fit, records(age=["1"], sex=["M"]), "variables")
    assert "no column 'age_norm', 'sex_norm', 'sequence_norm', 'csf_perc', 'wm_perc', 'gm_perc'" in text
    assert "columns with variables are 'age', 'sex'" in text
    assert "more than once: 'age'" in refused(fit, records(age=["1"]), "variables", ["age", "age"])
    assert "one of none, standard, min-max" in refused(fit, records(age=["1"]), "variables", ["age"], "zscore")


def test_scaled_values_beyond_float32_are_refused():
    spec = ConditionSpec("variables", 1, (Variable("age", scale=1e-300),))
    assert "beyond what float32 holds" in refused(spec.arrays, records(age=["1e200"]))


def test_no_condition_is_none():
    spec = fit([], "none")
    assert (spec.dim, spec.arrays(records(age=["1"]))) == (0, None)


def captioned(folder: Path, *arrays: np.ndarray | None) -> list[Record]:
    found = []
    for i, array in enumerate(arrays):
        path = folder / f"c{i}.npz"
        if array is not None:
            np.savez(path, data=array)
        found.append(Record(f"p{i}", Path("p.png"), "train", caption=path, line=i + 2))
    return found


def test_saved_embeddings_of_any_shape_and_type_become_flat(tmp_path):
    rows = np.arange(8, dtype=np.float16).reshape(2, 4)
    some = captioned(tmp_path, rows[0], rows[1][None, :])
    np.save(tmp_path / "c.npy", rows[0].astype(int))
    some.append(Record("p2", Path("p.png"), "train", caption=tmp_path / "c.npy"))
    spec = fit(some, "text")
    assert (spec.dim, spec.encoder) == (4, None)
    np.testing.assert_array_equal(spec.arrays(some)[:, 0], [rows[0], rows[1], rows[0]])


def test_embeddings_that_cannot_be_used_are_told_together(tmp_path):
    some = captioned(tmp_path, np.ones(4), np.ones(4), np.ones(5), None, np.array([1, np.nan]), np.array(["a"]))
    text = refused(fit, some, "text")
    assert "line 4: caption_emb_path has 5 numbers, and 4 is that of most" in text
    assert "line 5: caption_emb_path 'c3.npz' is neither beside the CSV nor under the working folder" in text
    assert "line 6: caption_emb_path 'c4.npz' holds NaN" in text
    assert "line 7: caption_emb_path 'c5.npz' holds <U1" in text
    assert "4 numbers, and 5 is the model's" in refused(ConditionSpec("text", 5).arrays, some[:1])


def test_hostile_files_of_embeddings_are_refused_and_nothing_is_executed(tmp_path):
    keyless, huge, pickled, junk = (tmp_path / name for name in ("key.npz", "huge.npz", "pickle.npz", "junk.npz"))
    np.savez(keyless, other=np.ones(3))
    with zipfile.ZipFile(huge, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", bytes(2**23))
    np.savez(pickled, data=np.array([{"a": 1}], object))
    junk.write_bytes(b"no archive")
    some = [
        Record(path.stem, Path("p.png"), "train", caption=path, line=i + 2)
        for i, path in enumerate((keyless, huge, pickled, junk))
    ]
    text = refused(fit, some, "text")
    assert "line 2: caption_emb_path 'key.npz' has no key 'data', but 'other'" in text
    assert "line 3: caption_emb_path 'huge.npz' unpacks to more than" in text
    assert "line 4: caption_emb_path 'pickle.npz' " in text
    assert "line 5: caption_emb_path 'junk.npz' " in text


class Lengths:
    """An encoder of texts: how long they are."""

    def __init__(self, name: str = "lengths") -> None:
        self.name, self.calls = name, 0

    def __call__(self, texts):
        self.calls += len(texts)
        return np.array([[len(text), 1] for text in texts], np.float32)


def test_captions_are_embedded_once_by_the_encoder_of_the_model():
    some = [
        Record(f"p{i}", Path("p.png"), "train", text=text, line=i + 2) for i, text in enumerate(("ab", "abc", "ab"))
    ]
    encoder = Lengths()
    spec = fit(some, "text", encoder="lengths", embed=encoder)
    assert (spec.dim, spec.encoder, encoder.calls) == (2, "lengths", 2)
    assert spec.arrays(some, encoder)[:, 0].tolist() == [[2, 1], [3, 1], [2, 1]]
    assert "another encoder of texts, lengths; this one is widths" in refused(spec.arrays, some, Lengths("widths"))
    assert "give it with --text-encoder" in refused(spec.arrays, some)
    assert "line 2: caption is empty" in refused(
        spec.arrays, [Record("p", Path("p.png"), "train", line=2), some[0]], encoder
    )


def test_text_without_captions_names_the_columns():
    assert "caption_emb_path" in refused(fit, records(age=["1"]), "text")
    assert "column caption" in refused(fit, records(age=["1"]), "text", encoder="lengths", embed=Lengths())


def test_a_specification_survives_json():
    for spec in (
        ConditionSpec(),
        ConditionSpec("text", 512, encoder="lengths"),
        fit(records(age=["1", "2.1"], sex=["F", "M"]), "variables", ["age", "sex"], "standard"),
    ):
        assert ConditionSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"kind": "text"},
        {"kind": "sound", "dim": 1, "variables": [], "encoder": None},
        {"kind": "text", "dim": 0, "variables": [], "encoder": None},
        {"kind": "variables", "dim": 2, "variables": [], "encoder": None},
        {"kind": "none", "dim": "x", "variables": 3, "encoder": None},
        {
            "kind": "variables",
            "dim": 1,
            "variables": [{"name": "a", "kind": "number", "offset": 0, "scale": 0, "categories": []}],
            "encoder": None,
        },
    ],
)
def test_conditions_of_a_damaged_checkpoint_are_refused(value):
    with pytest.raises(MetricError, match="conditions of the checkpoint"):
        ConditionSpec.from_dict(value)


def test_the_references_word_for_text_is_known():
    assert [conditioning_name(name) for name in ("none", "variables", "text", "conditioning")] == [
        "none",
        "variables",
        "text",
        "text",
    ]
    assert "one of none, variables, text" in refused(conditioning_name, "sound")
