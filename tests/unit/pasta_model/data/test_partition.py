# SPDX-License-Identifier: Apache-2.0
"""Who is at which client: everybody at one, small ones pooled, nobody lost."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.data.manifest import Session
from pasta_model.data.partition import partition_sites
from pasta_model.data.splits import assign_splits, people
from pasta_model.errors import ConfigError, ManifestError

PATH = Path("scan.nii")
WAYS = ("site", "phase", "site-phase", "one")


def session(subject: str, site: str = "A", visit: str = "bl", phase: str = "", **more: str) -> Session:
    return Session(subject, visit, site, "CN", PATH, PATH, phase=phase, **more)


@st.composite
def cohorts(draw: st.DrawFn) -> list[Session]:
    """People who visit several sites in several phases, under several names."""
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 9),
                st.sampled_from("ABC"),
                st.sampled_from(["ADNI1", "ADNI2", "ADNI3"]),
                st.sampled_from(["", "1", "2"]),
            ),
            min_size=1,
            max_size=30,
        )
    )
    return [
        session(f"s{n}", site, f"m{v:02d}", phase, rid=rid) for v, (n, site, phase, rid) in enumerate(rows)
    ]


@given(cohorts(), st.sampled_from(WAYS), st.integers(0, 4), st.randoms(use_true_random=False))
def test_everybody_is_at_one_client_and_no_client_is_small(sessions, by, smallest, random) -> None:
    found = partition_sites(sessions, by=by, smallest=smallest)
    assert [replace(s, site="") for s in found] == [replace(s, site="") for s in sessions]
    persons, clients = people(sessions), defaultdict(set)
    for row in found:
        clients[row.site].add(persons[row.subject])
    assert sum(len(client) for client in clients.values()) == len(set(persons.values()))
    if by != "one":
        assert all(len(client) >= smallest for name, client in clients.items() if "pooled" not in name)
    assign_splits(found, seed=1)  # which refuses a person at two sites
    order = list(range(len(sessions)))
    random.shuffle(order)
    again = partition_sites([sessions[i] for i in order], by=by, smallest=smallest)
    assert list(again) == [found[i] for i in order]


def names(sessions: list[Session], **how) -> list[str]:
    return [s.site for s in partition_sites(sessions, **how)]


VISITS = [
    session("s1", "A", "m12", "ADNI2"),
    session("s1", "A", "bl", "ADNI1"),
    session("s2", "B", "bl", "ADNI2"),
    session("s3", "B", "bl", "ADNI3"),
]


class TestWays:
    def test_by_site_phase_both_and_one(self) -> None:
        assert names(VISITS, by="site") == ["A", "A", "B", "B"]
        assert names(VISITS, by="phase") == ["ADNI1", "ADNI1", "ADNI2", "ADNI3"]
        assert names(VISITS, by="site-phase") == ["A-ADNI1", "A-ADNI1", "B-ADNI2", "B-ADNI3"]
        assert names(VISITS, by="one") == ["all"] * 4

    @pytest.mark.parametrize(
        ("first", "later"),
        [
            ({"visit": "bl"}, {"visit": "m06"}),
            ({"visit": "m6"}, {"visit": "m12"}),
            ({"visit": "ses-M006"}, {"visit": "ses-M012"}),
            ({"visit": "2011-03-20"}, {"visit": "2012-01-05"}),
            ({"visit": "m48", "phase": "ADNI1"}, {"visit": "bl", "phase": "ADNIGO"}),
            ({"visit": "m48", "phase": "ADNIGO"}, {"visit": "m60", "phase": "ADNI2"}),
        ],
    )
    def test_the_place_of_the_first_visit_counts(self, first, later) -> None:
        rows = [session("s1", "late", **later), session("s1", "early", **first)]
        assert names(rows, by="site") == ["early", "early"]

    def test_two_names_of_one_rid_go_together(self) -> None:
        rows = [session("s1", "B", "m12", rid="7"), session("s2", "A", "bl", rid="7")]
        assert names(rows, by="site") == ["A", "A"]

    def test_a_phase_that_one_visit_lacks_is_that_of_the_others(self) -> None:
        rows = [session("s1", "A", "bl"), session("s1", "A", "m12", "ADNI2")]
        assert names(rows, by="phase") == ["ADNI2", "ADNI2"]


SMALL = [
    *(session(f"a{i}", "A", phase="ADNI2") for i in range(5)),
    *(session("b1", "B", f"m{i}", "ADNI2") for i in range(9)),  # one person
    session("c1", "C", phase="ADNI2"),
    session("d1", "D", phase="ADNI3"),
]


class TestPools:
    def test_small_sites(self) -> None:
        assert names(SMALL, by="site", smallest=2) == ["A"] * 5 + ["pooled"] * 11

    def test_small_sites_of_a_phase(self) -> None:
        wanted = ["A-ADNI2"] * 5 + ["pooled-ADNI2"] * 10 + ["pooled-ADNI3"]
        assert names(SMALL, by="site-phase", smallest=2) == wanted

    def test_small_phases(self) -> None:
        assert names(SMALL, by="phase", smallest=2) == ["ADNI2"] * 15 + ["pooled"]

    def test_one_is_never_too_small(self) -> None:
        assert set(names(SMALL, by="one", smallest=99)) == {"all"}


class TestRefusals:
    def test_every_person_without_a_phase(self) -> None:
        rows = [session("s1"), session("s2", phase="ADNI2"), session("s3")]
        with pytest.raises(ManifestError, match=r"(?s)2 problem.*s1: no visit has a phase.*s3: no visit"):
            partition_sites(rows, by="site-phase")

    def test_two_clients_of_one_name(self) -> None:
        rows = [session("s1", "A-B", phase="C"), session("s2", "A", phase="B-C")]
        with pytest.raises(ConfigError, match="two clients would be called 'A-B-C'"):
            partition_sites(rows, by="site-phase")
        rows = [session("s1", "pooled"), session("s2", "pooled"), session("s3", "B")]
        with pytest.raises(ConfigError, match="two clients would be called 'pooled'"):
            partition_sites(rows, by="site", smallest=2)

    def test_unknown_way(self) -> None:
        with pytest.raises(ConfigError, match="by 'vendor', wanted one of site, phase, site-phase, one"):
            partition_sites([session("s1")], by="vendor")
