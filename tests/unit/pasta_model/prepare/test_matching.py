# SPDX-License-Identifier: Apache-2.0
"""Which MRI goes with which PET, and why: properties that hold for any hospital's sessions."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pasta_model.prepare.matching import days_apart, match
from pasta_model.prepare.records import RawScan, Visit

LIMIT = 100.0
DAYS = st.none() | st.integers(0, 400).map(float)
SCAN = st.sampled_from(["none", "undated"]) | st.integers(0, 400).map(float)


def make(subject: str, session: str, mri: object, pet: object, **changes: object) -> Visit:
    """Make a visit; a scan is "none", "undated", or its day."""

    def scan(kind: str, day: object) -> RawScan | None:
        label = f"{subject}_{session}_{kind}"
        found = RawScan(Path(f"{label}.nii"), session, None if day == "undated" else day, label)
        return None if day == "none" else found

    return replace(Visit(subject, session, "A", "CN", scan("mri", mri), scan("pet", pet)), **changes)


VISITS = st.lists(
    st.builds(
        make,
        st.sampled_from(["sub-1", "sub-2"]),
        st.sampled_from([f"ses-{n}" for n in range(5)]),
        SCAN,
        SCAN,
        diagnosis=st.sampled_from(["CN", "CN", "MCI", ""]),
        problems=st.sampled_from([(), (), ("the row is wrong",)]),
    ),
    max_size=10,
)


@given(VISITS, st.booleans())
def test_every_visit_has_exactly_one_decision_with_a_reason(visits: list[Visit], strict: bool) -> None:
    pairs, decisions = match(visits, limit_days=LIMIT, require_pet=strict)
    assert Counter(v.name for v in visits) == Counter(f"{d.subject}_{d.session}" for d in decisions)
    assert all(d.reason and d.outcome in ("taken", "left", "refused") for d in decisions)
    assert sorted(p.name for p in pairs) == sorted(
        f"{d.subject}_{d.session}" for d in decisions if d.outcome == "taken"
    )


@given(VISITS)
def test_a_pet_serves_one_mri_of_its_own_subject_within_the_limit(visits: list[Visit]) -> None:
    pairs, _ = match(visits, limit_days=LIMIT)
    assert max(Counter(p.pet.path for p in pairs).values(), default=1) == 1
    for pair in pairs:
        assert pair.pet.label.startswith(pair.visit.subject)
        assert pair.pet.session == pair.visit.session if pair.days_apart is None else pair.days_apart <= LIMIT


@given(VISITS, st.integers(0, 1000))
def test_the_order_of_the_rows_does_not_matter(visits: list[Visit], seed: int) -> None:
    shuffled = Random(seed).sample(visits, len(visits))
    assert match(shuffled, limit_days=LIMIT) == match(visits, limit_days=LIMIT)


@given(VISITS)
def test_a_refused_visits_scans_are_never_used(visits: list[Visit]) -> None:
    pairs, decisions = match(visits, limit_days=LIMIT)
    refused = {f"{d.subject}_{d.session}" for d in decisions if d.outcome == "refused"}
    wrong = {v.name for v in visits if v.problems or (v.mri and not v.diagnosis)}
    assert wrong <= refused
    assert not refused & {name for p in pairs for name in (p.name, f"{p.visit.subject}_{p.pet.session}")}


@given(st.floats(0, 400), st.lists(st.floats(0, 400), min_size=1, max_size=5, unique=True))
def test_an_mri_without_rivals_gets_the_nearest_pet(day: float, days: list[float]) -> None:
    visits = [make("sub-1", f"ses-{n}", "none", other) for n, other in enumerate(days)]
    pairs, _ = match([make("sub-1", "ses-mri", day, "none"), *visits], limit_days=LIMIT)
    nearest = min(abs(day - other) for other in days)
    assert [p.days_apart for p in pairs] == ([nearest] if nearest <= LIMIT else [])


@given(VISITS)
def test_no_pair_within_the_limit_is_left_lying(visits: list[Visit]) -> None:
    pairs, decisions = match(visits, limit_days=LIMIT)
    used = {scan.path for p in pairs for scan in (p.mri, p.pet)}
    fit = {
        f"{d.subject}_{d.session}" for d in decisions if d.outcome != "refused" or "no FDG-PET" in d.reason
    }
    free = [v for v in visits if v.name in fit]
    for mri in (v for v in free if v.mri and v.mri.path not in used):
        for pet in (v for v in free if v.pet and v.pet.path not in used and v.subject == mri.subject):
            apart = days_apart(mri.mri, pet.pet)
            assert mri.session != pet.session if apart is None else apart > LIMIT


def test_the_nearer_pair_goes_first_whatever_the_sessions_are() -> None:
    visits = [make("s", "a", 0.0, "none"), make("s", "b", 50.0, 30.0), make("s", "c", 28.0, "none")]
    (pair,) = match(visits)[0]
    assert (pair.name, pair.pet.session, pair.days_apart) == ("s_c", "b", 2.0)


def test_of_equal_distances_the_same_session_is_taken() -> None:
    visits = [make("s", "a", 10.0, "none"), make("s", "b", 10.0, 5.0)]
    (pair,) = match(visits)[0]
    assert pair.name == "s_b"


def test_the_limit_itself_is_within_the_limit() -> None:
    visits = [make("s", "a", 0.0, 180.0)]
    assert len(match(visits)[0]) == 1
    assert match(visits, limit_days=179.0)[0] == ()


def test_a_pet_too_far_away_is_left_with_its_distance() -> None:
    (decision,) = match([make("s", "a", 0.0, 250.0)])[1]
    assert decision.outcome == "left"
    assert "250 days away, wanted at most 180" in decision.reason


def test_duplicate_sessions_are_refused_both_and_the_rest_goes_on() -> None:
    twice = make("s", "a", 0.0, 0.0)
    pairs, decisions = match([twice, replace(twice, site="B"), make("s", "b", 300.0, 300.0)])
    assert [(d.session, d.outcome) for d in decisions] == [("a", "refused"), ("a", "refused"), ("b", "taken")]
    assert all("found 2 times" in d.reason for d in decisions[:2])
    assert [p.name for p in pairs] == ["s_b"]


def test_a_subject_without_any_pet_is_refused_or_left_as_one_wants() -> None:
    visits = [make("s", "a", 0.0, "none"), make("t", "a", 0.0, 0.0)]
    strict, kind = (match(visits, require_pet=word)[1][0] for word in (True, False))
    assert (strict.subject, strict.outcome, kind.outcome) == ("s", "refused", "left")
    assert "no FDG-PET" in strict.reason


def test_a_session_with_a_pet_only_says_whose_it_is() -> None:
    _, decisions = match(
        [make("s", "a", 0.0, "none"), make("s", "b", "none", 9.0), make("t", "a", "none", 0.0)]
    )
    assert [d.outcome for d in decisions] == ["taken", "left", "left"]
    assert decisions[1].reason == "no MRI in this session; its PET goes with s_a"
    assert "no T1 MRI" in decisions[2].reason


def test_problems_are_told_together() -> None:
    (decision,) = match([make("s", "a", 0.0, 0.0, diagnosis="", problems=("no site",))])[1]
    assert decision.outcome == "refused"
    assert decision.reason == "no site; no diagnosis, wanted CN, MCI or Dementia"


def test_a_file_given_to_two_subjects_is_refused_for_both() -> None:
    one, other, third = (make(name, "a", 0.0, 0.0) for name in ("s", "t", "u"))
    pairs, decisions = match([one, replace(other, pet=one.pet), third])
    assert [d.outcome for d in decisions] == ["refused", "refused", "taken"]
    assert all("s and t" in d.reason for d in decisions[:2])
    assert [p.name for p in pairs] == ["u_a"]


def test_a_session_without_mri_needs_no_diagnosis_and_lends_its_pet() -> None:
    lender = make("s", "b", "none", 9.0, diagnosis="")
    empty = make("s", "c", "none", "none", diagnosis="")
    pairs, decisions = match([make("s", "a", 0.0, "none"), lender, empty])
    assert [(p.name, p.pet.session) for p in pairs] == [("s_a", "b")]
    assert [d.outcome for d in decisions] == ["taken", "left", "left"]


def test_what_was_found_and_not_taken_is_told_where_nothing_was_taken() -> None:
    note = "x_pet.nii is a PET of 18FAV45, wanted FDG"
    lone, paired = make("s", "a", 0.0, "none", notes=(note,)), make("t", "a", 0.0, 0.0, notes=(note,))
    for strict in (True, False):
        left, taken = match([lone, paired], require_pet=strict)[1]
        assert left.reason.endswith(f"; {note}")
        assert taken.reason == "same session, 0 days apart"
