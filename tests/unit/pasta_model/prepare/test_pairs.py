# SPDX-License-Identifier: Apache-2.0
"""Which MRI goes with which PET; and every session hears why."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pasta_model.prepare.matching import days_apart, match
from pasta_model.prepare.records import RawScan, Visit


def visit(subject: str, session: str, mri: float | None, pet: float | None, **words: object) -> Visit:
    """A visit whose scans were taken on these days."""
    scans = {
        kind: None if day is None else RawScan(Path(f"{subject}_{session}_{kind}.nii"), session, day, kind)
        for kind, day in (("mri", mri), ("pet", pet))
    }
    return Visit(subject, session, "north", "CN", **{**scans, **words})


def why(visits: list[Visit], **words: object) -> dict[str, tuple[str, str]]:
    return {f"{d.subject}_{d.session}": (d.outcome, d.reason) for d in match(visits, **words)[1]}


def test_the_nearest_pet_is_taken_across_sessions():
    pairs, _ = match([visit("s", "a", 0, None), visit("s", "b", None, 40), visit("s", "c", None, 100)])
    assert [(p.visit.session, p.pet.session, p.days_apart) for p in pairs] == [("a", "b", 40)]


def test_a_pet_serves_the_nearer_mri_and_the_other_hears_why():
    visits = [visit("s", "a", 0, None), visit("s", "b", 50, 60)]
    assert why(visits)["s_a"] == ("left", "the PET nearest in time, of b, goes with an MRI nearer to it")
    assert why(visits)["s_b"][0] == "taken"


def test_beyond_the_limit_the_distance_is_told():
    visits = [visit("s", "a", 0, None), visit("s", "b", None, 200)]
    assert why(visits)["s_a"] == (
        "left",
        "the PET nearest in time, of b, is 200 days away, wanted at most 180",
    )
    assert why(visits, limit_days=365)["s_a"][0] == "taken"


def test_without_days_only_the_same_session_is_a_match():
    a, b = visit("s", "a", 0, 0), visit("s", "b", 0, None)
    blind = [
        Visit(v.subject, v.session, "north", "CN", v.mri and RawScan(v.mri.path, v.session),
              v.pet and RawScan(v.pet.path, v.session))
        for v in (a, b)
    ]  # fmt: skip
    assert [p.name for p in match(blind)[0]] == ["s_a"]


def test_no_pet_at_all_is_a_mistake_unless_it_is_allowed():
    alone = [visit("s", "a", 0, None)]
    assert why(alone)["s_a"][0] == "refused"
    assert why(alone, require_pet=False)["s_a"][0] == "left"


def test_both_rows_of_a_duplicate_and_a_missing_diagnosis_are_refused():
    twice = [visit("s", "a", 0, 0), visit("s", "a", 1, 1)]
    assert [d.outcome for d in match(twice)[1]] == ["refused", "refused"]
    unknown = Visit("s", "a", "north", "", RawScan(Path("m"), "a", 0.0), RawScan(Path("p"), "a", 0.0))
    assert "no diagnosis" in why([unknown])["s_a"][1]


days = st.none() | st.integers(0, 400)
rows_of = st.lists(
    st.tuples(st.sampled_from("st"), st.integers(0, 5), days, days),
    max_size=12,
    unique_by=lambda row: row[:2],
)
visits_of = rows_of.map(lambda rows: [visit(s, str(n), mri, pet) for s, n, mri, pet in rows])


@settings(max_examples=200, deadline=None)
@given(visits_of, st.randoms(use_true_random=False))
def test_every_visit_has_one_decision_and_no_pet_serves_twice(visits, random):
    pairs, decisions = match(visits, limit_days=100)

    assert sorted((d.subject, d.session) for d in decisions) == sorted((v.subject, v.session) for v in visits)
    pets = [p.pet.path for p in pairs]
    assert len(pets) == len(set(pets))
    assert all(p.days_apart is not None and p.days_apart <= 100 for p in pairs)
    assert {p.name for p in pairs} == {f"{d.subject}_{d.session}" for d in decisions if d.outcome == "taken"}
    shuffled = list(visits)
    random.shuffle(shuffled)
    assert match(shuffled, limit_days=100) == (pairs, decisions)


@settings(max_examples=200, deadline=None)
@given(visits_of)
def test_nobody_is_left_beside_a_pet_within_reach_that_no_one_uses(visits):
    pairs, _ = match(visits, limit_days=100)
    paired, used = {p.name for p in pairs}, {p.pet.path for p in pairs}
    for mri in (v for v in visits if v.mri and v.name not in paired):
        for pet in (v for v in visits if v.pet and v.subject == mri.subject and v.pet.path not in used):
            apart = days_apart(mri.mri, pet.pet)
            assert apart is None or apart > 100
