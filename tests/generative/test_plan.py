"""Plans of images and the names of their files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepssim.errors import UsageError
from deepssim.generative.sampling.plan import file_name, folder_name, plan_free, plan_records


def test_all_images_of_a_record_come_before_the_next_with_its_condition():
    contexts = np.arange(4, dtype=np.float32).reshape(2, 1, 2)
    plan = plan_records(["a", "b"], 3, contexts)
    found = [plan.request(place) for place in plan.wanted()]
    assert [(r.uid, r.number, r.place) for r in found] == [
        ("a", 0, 0), ("a", 1, 1), ("a", 2, 2), ("b", 0, 3), ("b", 1, 4), ("b", 2, 5),
    ]  # fmt: skip
    assert [r.context.tolist() for r in found[2:4]] == [[[0, 1]], [[2, 3]]]


def test_a_plan_of_a_thousand_million_images_is_a_rule_and_no_list():
    plan = plan_free(10**9)
    assert len(plan) == len(plan.wanted()) == 10**9
    assert (plan.request(10**9 - 1).uid, plan.request(10**9 - 1).number) == ("sample-999999", 999)


@pytest.mark.parametrize("n_images", [0, -1, 10**9 + 1])
def test_no_images_and_too_many_are_refused(n_images):
    with pytest.raises(UsageError, match=r"give 1 to 1,000,000,000"):
        plan_free(n_images)


def test_records_of_one_name_are_refused_by_name():
    with pytest.raises(UsageError, match="'b'"):
        plan_records(["a", "b", "b"], 2)
    with pytest.raises(UsageError, match="no record"):
        plan_records([], 2)


def test_images_that_are_asked_for_alone_keep_their_places():
    plan = plan_records(["a", "b/c"], 10).narrowed(["b/c/7", "a/0", "b/c/7"])
    assert (len(plan), plan.wanted()) == (2, (0, 17))
    assert plan.request(17).uid == "b/c"


def test_images_that_the_plan_does_not_have_are_all_named():
    names = ["a/10", "c/0", "a", "a/-1", "a/x", "a/1²", "a/99999999999999999999", "/", ""]
    with pytest.raises(UsageError, match=r"9 images.*'a/10', 'c/0', 'a'.*from a/0 to b/9"):
        plan_records(["a", "b"], 10).narrowed([*names, "a/1"])
    with pytest.raises(UsageError, match="1 images"):
        plan_free(1500).narrowed(["sample-00001/500"])


def test_a_change_of_a_condition_or_of_the_order_shows_in_the_description():
    contexts = np.zeros((2, 1, 2), np.float32)
    said = [plan_records(["a", "b"], 3, contexts).describe()["records"]]
    said.append(plan_records(["b", "a"], 3, contexts).describe()["records"])
    contexts[1, 0, 1] = 1e-6
    said.append(plan_records(["a", "b"], 3, contexts).describe()["records"])
    said.append(plan_records(["ab", ""], 3, np.zeros((2, 1, 2), np.float32)).describe()["records"])
    assert len(set(said)) == 4


def test_more_images_of_no_record_begin_with_the_fewer():
    few, many = plan_free(900), plan_free(5000)
    assert [few.request(i).uid for i in range(900)] == [many.request(i).uid for i in range(900)]
    assert few.describe()["records"] == many.describe()["records"]


@pytest.mark.parametrize("uid", ["p07", "IXI012-Guys-1_2.x~", "0"])
def test_a_plain_identifier_is_its_folder(uid):
    assert file_name(uid, 12) == f"{uid}/gen-12.png"


@given(st.lists(st.text(max_size=400), unique=True, min_size=2, max_size=20))
def test_no_identifier_leaves_the_folder_or_takes_the_place_of_another(uids):
    names = [folder_name(uid) for uid in [*uids, "..", ".", "", "run.json", "a/b", "caf\udce9", "x" * 300, "x" * 301]]
    assert all(0 < len(name) < 256 and "/" not in name and name[0] != "." and name.isascii() for name in names)
    assert "run.json" not in names
    expected = len({*uids, "..", ".", "", "run.json", "a/b", "caf\udce9", "x" * 300, "x" * 301})
    assert len(set(names)) == expected
