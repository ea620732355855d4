"""Names: nothing unchecked may reach a subject."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.names import (
    NAME_LIMIT,
    SessionKey,
    Subjects,
    check_name,
    new_turn_id,
    service_subjects,
    turn_id_for,
)

KEY = SessionKey("acme", "s-1")

HOSTILE = {
    "empty": "",
    "too long": "a" * (NAME_LIMIT + 1),
    "the wildcard of one token": "*",
    "the wildcard of all tokens": ">",
    "a wildcard inside": "a*",
    "two tokens": "a.b",
    "an empty token": "a..b",
    "a leading dot": ".a",
    "a space": "a b",
    "a line end": "a\n",
    "a carriage return": "a\r\nPUB x 0",
    "a tabulator": "a\tb",
    "NUL": "a\0",
    "a system subject": "$SYS",
    "a slash": "a/b",
    "letters that only look like ours": "\N{CYRILLIC SMALL LETTER A}",
    "digits that only look like ours": "\N{ARABIC-INDIC DIGIT ONE}",
    "a full-width letter": "\N{FULLWIDTH LATIN SMALL LETTER A}",
    "an invisible mark": "a\N{ZERO WIDTH SPACE}",
    "half a character": "\ud800",
    "bytes": b"a",
    "a number": 7,
    "nothing": None,
    "a list": ["a"],
}


class TestCheckName:
    @pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
    def test_refuses(self, value: object) -> None:
        with pytest.raises(BadInput) as caught:
            check_name("session_id", value)
        assert "session_id" == caught.value.field
        assert str(NAME_LIMIT) in caught.value.problem

    @pytest.mark.parametrize("value", ["a", "A-z_09", "-", "_", "0", "a" * NAME_LIMIT])
    def test_accepts(self, value: str) -> None:
        assert value == check_name("session_id", value)

    @pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
    def test_guards_sessions_and_tenants(self, value: str) -> None:
        with pytest.raises(BadInput, match="tenant"):
            SessionKey(value, "s")
        with pytest.raises(BadInput, match="session_id"):
            SessionKey("t", value)


class TestSubjects:
    @pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
    def test_of_turns_and_workers_take_checked_names_only(self, value: str) -> None:
        subjects = Subjects()
        builds: list[Callable[[], str]] = [
            lambda: subjects.turn(KEY, value),
            lambda: subjects.interrupt(KEY, value),
            lambda: subjects.heartbeat(value),
            lambda: subjects.worker_control(value),
            lambda: subjects.edge_heartbeat(value),
            lambda: subjects.tenant_requests(value),
        ]
        for build in builds:
            with pytest.raises(BadInput):
                build()

    def test_that_are_refused_name_what_was_wrong(self) -> None:
        subjects = Subjects()
        builds: dict[str, list[Callable[[], object]]] = {
            "turn": [lambda: subjects.turn(KEY, "*"), lambda: subjects.interrupt(KEY, "*")],
            "tenant": [lambda: subjects.tenant_requests("*"), lambda: subjects.tenant_transcripts("*")],
            "worker": [lambda: subjects.heartbeat("*"), lambda: subjects.worker_control("*")],
            "edge": [lambda: subjects.edge_heartbeat("*")],
            "ticket": [lambda: subjects.ticket("*")],
            "name": [lambda: service_subjects("PING", "*", "id")],
            "id": [lambda: service_subjects("PING", "name", "*")],
        }
        for field, ways in builds.items():
            for way in ways:
                with pytest.raises(BadInput) as refused:
                    way()
                assert field == refused.value.field

    def test_of_the_records_that_go_with_a_session_end_with_its_owner(self) -> None:
        expected = ("ww.bnd.acme.s-1", "ww.int.acme.s-1.*", "ww.turn.acme.s-1.*", "ww.own.acme.s-1")
        assert expected == Subjects().records_of(KEY)

    def test_of_a_ticket_hold_its_digest(self) -> None:
        assert "ww.tkt.abc" == Subjects().ticket("abc")

    def test_of_services_narrow_down(self) -> None:
        found = service_subjects("INFO", "warmwire-edge", "e1")
        assert ("$SRV.INFO", "$SRV.INFO.warmwire-edge", "$SRV.INFO.warmwire-edge.e1") == found

    @pytest.mark.parametrize("prefix", ["", "*", ">", "a.b", "a b", "a" * 33, "ä", "a\n"])
    def test_refuse_a_prefix_that_is_no_token(self, prefix: str) -> None:
        with pytest.raises(BadInput) as refused:
            Subjects(prefix)
        expected = ("prefix", "must be 1 to 32 characters of A-Z a-z 0-9 _ -")
        assert expected == (refused.value.field, refused.value.problem)

    def test_name_the_tenant_and_the_session(self) -> None:
        assert "ww.req.acme.s-1" == Subjects().requests(KEY)
        assert "ww.turn.acme.s-1.t1" == Subjects().turn(KEY, "t1")
        assert "x.evt.acme.s-1" == Subjects("x").events(KEY)

    def test_of_records_are_those_of_the_stream_and_who_owns_a_session_is_forgotten_last(self) -> None:
        stream = ("ww.own.*.*", "ww.turn.*.*.*", "ww.int.*.*.*", "ww.ses.*.*", "ww.bnd.*.*", "ww.tkt.*")
        assert stream == Subjects().all_records
        gone = ("ww.bnd.acme.s-1", "ww.int.acme.s-1.*", "ww.turn.acme.s-1.*", "ww.own.acme.s-1")
        assert gone == Subjects().records_of(KEY)
        assert Subjects().owner(KEY) == Subjects().record("own", KEY)

    def test_tell_their_session(self) -> None:
        subjects = Subjects()
        for subject in (
            subjects.requests(KEY),
            subjects.owner(KEY),
            subjects.turn(KEY, "t1"),
            subjects.interrupt(KEY, "t1"),
            subjects.about(KEY),
            subjects.transcript(KEY),
            subjects.events(KEY),
            subjects.control(KEY),
            subjects.forwards(KEY),
            subjects.viewers(KEY),
        ):
            assert KEY == subjects.session_of(subject)

    @pytest.mark.parametrize(
        "subject",
        ["", "ww", "ww.req.acme", "other.req.acme.s-1", "ww.wrk.w1.ctl", "ww.req.a*.s", "ww.req..s"],
    )
    def test_of_nothing_of_ours_name_no_session(self, subject: str) -> None:
        with pytest.raises(BadInput):
            Subjects().session_of(subject)

    def test_that_name_no_session_are_shown_in_part(self) -> None:
        with pytest.raises(BadInput) as refused:
            Subjects().session_of("x" * 1000)
        assert ("subject", f"{'x' * 120!r} names no session") == (refused.value.field, refused.value.problem)


class TestNewTurnIds:
    def test_are_uuids_of_version_7(self) -> None:
        made = uuid.UUID(new_turn_id(1_764_000_000_042))
        assert 7 == made.version
        assert uuid.RFC_4122 == made.variant
        assert 1_764_000_000_042 == made.int >> 80

    def test_are_sorted_by_time(self) -> None:
        times = [0, 1, 255, 256, 1_764_000_000_041, 1_764_000_000_042, (1 << 48) - 1]
        ids = [new_turn_id(now) for now in times]
        assert sorted(ids) == ids

    def test_differ_within_a_millisecond(self) -> None:
        assert 1000 == len({new_turn_id(1) for _ in range(1000)})

    def test_leave_no_bit_of_chance_unused(self) -> None:
        made = [uuid.UUID(new_turn_id(1)).int for _ in range(200)]
        fixed = 0xF << 76 | 0b11 << 62
        varied = 0
        for each in made:
            varied |= each ^ made[0]
        assert (1 << 80) - 1 == varied | fixed
        assert 0 == varied & fixed

    def test_may_stand_in_a_subject(self) -> None:
        assert check_name("turn", new_turn_id(1))


class TestTurnIdsOfKeys:
    def test_are_the_same_for_the_same_key(self) -> None:
        assert turn_id_for("acme", "s", "k") == turn_id_for("acme", "s", "k")

    def test_differ_by_tenant_session_and_key(self) -> None:
        ids = {
            turn_id_for(*names)
            for names in (("a", "s", "k"), ("b", "s", "k"), ("a", "r", "k"), ("a", "s", "j"))
        }
        assert 4 == len(ids)

    def test_do_not_change_between_releases(self) -> None:
        assert "14239c61-5921-5c3f-a21b-93f76c1d827a" == turn_id_for("acme", "s", "k")

    def test_of_any_key_may_stand_in_a_subject(self) -> None:
        assert check_name("turn", turn_id_for("acme", "s", "*.> \n"))
