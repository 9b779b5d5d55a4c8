# SPDX-License-Identifier: Apache-2.0
"""How hospitals and ADNI spell things: one meaning each, or a sentence that says what is wanted."""

from datetime import date

import pytest

from pasta_model.data.manifest import CLINICAL
from pasta_model.prepare.vocabulary import (
    bad_date,
    clinical_of,
    day_of,
    diagnosis_of,
    is_missing,
    month_of,
    name_of,
    session_of,
    site_of,
)


@pytest.mark.parametrize(
    ("name", "spellings"),
    [
        ("CN", "CN|cn|NL|SMC|HC|Control|healthy control|Cognitively Normal| cn "),
        ("MCI", "MCI|mci|EMCI|LMCI|aMCI|Mild Cognitive Impairment"),
        ("Dementia", "Dementia|dementia|AD|ad|Alzheimer|Alzheimer's disease|DAT|probable AD"),
    ],
)
def test_a_diagnosis_may_be_spelt_in_many_ways(name: str, spellings: str) -> None:
    for spelling in spellings.split("|"):
        assert diagnosis_of(spelling) == (name, ""), spelling


@pytest.mark.parametrize(
    ("cell", "later"),
    [
        ("NL to MCI", "MCI"),
        ("MCI to Dementia", "Dementia"),
        ("MCI to NL", "CN"),
        ("Dementia  TO  MCI", "MCI"),
    ],
)
def test_of_a_transition_the_later_state_counts(cell: str, later: str) -> None:
    assert diagnosis_of(cell) == (later, "")


@pytest.mark.parametrize(
    ("cell", "hint"), [("Demenita", "Dementia"), ("alzheimers diseas", "Dementia"), ("Contrl", "CN")]
)
def test_a_misspelt_diagnosis_is_named_with_what_may_be_meant(cell: str, hint: str) -> None:
    name, wrong = diagnosis_of(cell)
    assert name == ""
    assert wrong == f"diagnosis {cell!r}, wanted CN, MCI or Dementia; did you mean {hint}?"


def test_a_diagnosis_like_nothing_known_has_no_hint() -> None:
    assert diagnosis_of("42") == ("", "diagnosis '42', wanted CN, MCI or Dementia")


@pytest.mark.parametrize("cell", [None, "", " ", "n/a", "NA", "NaN", "-4", "-4.0", "."])
def test_a_cell_without_a_value_is_missing_and_no_mistake(cell: str | None) -> None:
    assert is_missing(cell)
    assert diagnosis_of(cell) == ("", "")
    assert clinical_of({"mmse": cell}) == (dict.fromkeys(CLINICAL), [])
    assert site_of(cell) == ""
    assert day_of(cell) is None


def test_zero_is_a_value() -> None:
    assert not is_missing("0")
    assert clinical_of({"apoe4": "0"})[0]["apoe4"] == 0.0


@pytest.mark.parametrize(
    ("cell", "value"), [("M", 0.0), ("Male", 0.0), ("male", 0.0), ("F", 1.0), (" FEMALE ", 1.0)]
)
def test_sexes(cell: str, value: float) -> None:
    values, problems = clinical_of({"sex": cell})
    assert (values["sex"], problems) == (value, [])


def test_each_impossible_value_has_a_line_and_the_others_stay() -> None:
    values, problems = clinical_of({"age": "70.5", "sex": "man", "mmse": "31", "education": "many"})
    assert values == dict.fromkeys(CLINICAL) | {"age": 70.5}
    assert [line.split()[0] for line in problems] == ["sex", "mmse", "education"]
    assert problems[1] == "mmse '31', wanted a number from 0 to 30, or nothing"


@pytest.mark.parametrize(
    "cell", ["2006-03-09", "03/09/2006", "09.03.2006", "20060309", " 2006-03-09T23:59:00"]
)
def test_a_date_in_four_formats_is_one_day(cell: str) -> None:
    assert day_of(cell) == date(2006, 3, 9).toordinal()


@pytest.mark.parametrize("cell", ["2006", "2006-13-01", "31.02.2006", "soon"])
def test_what_is_no_date_is_no_day(cell: str) -> None:
    assert day_of(cell) is None


@pytest.mark.parametrize(
    ("session", "months"),
    [("bl", 0), ("BL", 0), ("m06", 6), ("M6", 6), ("ses-M006", 6), ("ses-m120", 120), ("ses-bl", 0)],
)
def test_a_visit_says_its_month(session: str, months: float) -> None:
    assert month_of(session) == months


@pytest.mark.parametrize("session", ["ses-01", "v02", "sc", "mx", "m", ""])
def test_a_visit_that_says_no_month_has_none(session: str) -> None:
    assert month_of(session) is None


@pytest.mark.parametrize(
    ("viscode", "session"),
    [("bl", "ses-M000"), ("m06", "ses-M006"), ("m6", "ses-M006"), ("m120", "ses-M120"), ("v 02", "ses-v02")],
)
def test_a_viscode_becomes_a_session(viscode: str, session: str) -> None:
    assert session_of(viscode) == session


def test_a_name_is_letters_and_digits_after_its_prefix() -> None:
    assert name_of("011_S_0002", prefix="sub-") == "sub-011S0002"
    assert name_of("sub-../x", prefix="sub-") == "sub-x"


@pytest.mark.parametrize(
    ("cell", "site"),
    [
        ("11", "site-11"),
        ("011", "site-11"),
        ("11.0", "site-11"),
        ("Oslo", "Oslo"),
        ("St. Olav / B", "St.-Olav-B"),
    ],
)
def test_a_sites_number_becomes_a_name(cell: str, site: str) -> None:
    assert site_of(cell) == site


@pytest.mark.parametrize("cell", [None, "", "n/a", "2010-03-18", "2010-03-18T10:20:30"])
def test_a_date_or_nothing_is_no_mistake(cell: str | None) -> None:
    assert bad_date(cell, "date") == []


@pytest.mark.parametrize("cell", ["31/12/2010", "10:20:30", "spring"])
def test_a_date_that_cannot_be_read_is_named(cell: str) -> None:
    assert bad_date(cell, "date of x") == [
        f"date of x {cell!r}, wanted a date such as 2010-03-18, or nothing"
    ]
