"""Who is let in, and to which sessions."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from time import time
from typing import Any

import pytest

from warmwire.broker.wire.messages import SessionRecord
from warmwire.broker.wire.names import SessionKey
from warmwire.edge.access.caller import Caller, Need, Scope, Verdict, judge
from warmwire.edge.access.jwks import CannotFetch, Jwks, Key, keys_in
from warmwire.edge.access.tokens import Expected, caller_of, claims_of, public_key
from warmwire.edge.errors import Kind, Problem

from tests.client import eventually
from tests.doc_runner import ROOT, blocks_of
from tests.edge.access.tokens import (
    ALL,
    SECRET,
    bearer,
    ec_key,
    jwk,
    key_server,
    pem,
    rsa_key,
    token,
    with_secret,
)
from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeWorker
from tests.edge.wire import Answer, Wire

SECURITY = ROOT / "docs" / "security.md"
S1 = "/v1/sessions/s1"
EXPECTED = Expected(audience=None, issuer=None, tenant_claim="tenant", default_tenant=None)


@pytest.fixture
async def wire(start: Start, tmp_path: Path) -> Wire:
    """A wire in front of an edge that wants tokens."""
    return (await start(**with_secret(tmp_path))).wire


async def code(answer: Answer) -> tuple[int, str]:
    """Status and kind of a refusal."""
    problem = await answer.problem()
    return answer.status, problem["type"].rpartition(":")[2]


async def sent(wire: Wire, sub: str = "alice", session: str = "s1", **claims: Any) -> Answer:
    """A message that was sent without waiting."""
    return await wire.send(
        "POST", f"/v1/sessions/{session}/messages", {"message": "Hello"}, **bearer(sub, **claims)
    )


# -- tokens


def caller(**claims: Any) -> Caller:
    """Whom such a token is about."""
    key = Key(SECRET.encode(), "HS256")
    return caller_of(claims_of(token(**claims), key, EXPECTED), EXPECTED)


def refused(**claims: Any) -> tuple[Kind, str | None]:
    """How such a token is refused."""
    with pytest.raises(Problem) as raised:
        caller(**claims)
    return raised.value.kind, raised.value.field


def test_a_token_says_who_and_what_and_how_long() -> None:
    exp = int(time()) + 60
    known = caller(sub="alice|1@x", scope="openid chat:read", sessions=["a-*", "b"], exp=exp)
    assert Caller("acme", "alice|1@x", frozenset({Scope.READ}), ("a-*", "b"), exp + 10.0) == known


def test_the_page_on_security_shows_how_to_make_one(tmp_path: Path) -> None:
    secret, makes = [block.body for block in blocks_of(SECURITY.read_text()) if block.kind == "sh"][:2]
    typed = f"{secret.splitlines()[0]}\n{makes.partition('warmwire chat')[0]}printf %s $WARMWIRE_ACCESS_TOKEN"
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    made = subprocess.check_output(["bash", "-euc", typed], cwd=tmp_path, env=environment, text=True)
    key = Key((tmp_path / "secret").read_bytes().strip(), "HS256")
    known = caller_of(claims_of(made, key, EXPECTED), EXPECTED)
    assert ("acme", "alice", frozenset({Scope.READ, Scope.WRITE})) == (
        known.tenant,
        known.subject,
        known.scopes,
    )


@pytest.mark.parametrize(
    ("claims", "kind", "field"),
    [
        ({"exp": None}, Kind.INVALID_TOKEN, "exp"),
        ({"sub": None}, Kind.INVALID_TOKEN, "sub"),
        ({"exp": 1}, Kind.TOKEN_EXPIRED, None),
        ({"nbf": 4_000_000_000}, Kind.INVALID_TOKEN, None),
        ({"iat": 4_000_000_000}, Kind.INVALID_TOKEN, None),
        ({"sub": ""}, Kind.UNUSABLE_TOKEN, "sub"),
        ({"sub": "x" * 256}, Kind.UNUSABLE_TOKEN, "sub"),
        ({"sub": "a\r\nb"}, Kind.UNUSABLE_TOKEN, "sub"),
        ({"tenant": None}, Kind.UNUSABLE_TOKEN, "tenant"),
        ({"tenant": "a.b"}, Kind.UNUSABLE_TOKEN, "tenant"),
        ({"tenant": "*"}, Kind.UNUSABLE_TOKEN, "tenant"),
        ({"tenant": 7}, Kind.UNUSABLE_TOKEN, "tenant"),
        ({"scope": ["chat:read"]}, Kind.UNUSABLE_TOKEN, "scope"),
        ({"sessions": "s1"}, Kind.UNUSABLE_TOKEN, "sessions"),
        ({"sessions": ["*-s"]}, Kind.UNUSABLE_TOKEN, "sessions"),
        ({"sessions": ["a>"]}, Kind.UNUSABLE_TOKEN, "sessions"),
        ({"sessions": [""]}, Kind.UNUSABLE_TOKEN, "sessions"),
        ({"sessions": ["s"] * 101}, Kind.UNUSABLE_TOKEN, "sessions"),
    ],
)
def test_a_claim_that_is_of_no_use_is_named(claims: dict[str, Any], kind: Kind, field: str | None) -> None:
    assert (kind, field) == refused(**claims)


def test_the_claim_of_the_tenant_has_the_name_and_the_default_that_are_set() -> None:
    expected = Expected(None, None, tenant_claim="org", default_tenant="house")
    claims = {"sub": "alice", "exp": 1}
    assert [caller_of(claims, expected).tenant, caller_of(claims | {"org": "b"}, expected).tenant] == [
        "house",
        "b",
    ]


FOR_CHAT = Expected("chat", "us", "tenant", None)


@pytest.mark.parametrize("aud", ["chat", ["mail", "chat"]])
def test_the_audience_may_be_one_of_several(aud: object) -> None:
    assert claims_of(token(aud=aud, iss="us"), Key(SECRET.encode(), "HS256"), FOR_CHAT)["sub"] == "alice"


@pytest.mark.parametrize(
    "given",
    [
        {"aud": "mail", "iss": "us"},
        {"aud": ["mail"], "iss": "us"},
        {"iss": "us"},
        {"aud": "chat", "iss": "them"},
        {"aud": "chat"},
    ],
)
def test_another_audience_or_issuer_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(Problem) as raised:
        claims_of(token(**given), Key(SECRET.encode(), "HS256"), FOR_CHAT)
    assert raised.value.kind is Kind.INVALID_TOKEN


@pytest.mark.parametrize("make", [rsa_key, ec_key])
async def test_a_public_key_lets_in_what_its_private_key_signed(
    start: Start, tmp_path: Path, make: Any
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(make()))
    wire = (await start(auth="jwt", jwt_public_key_file=path)).wire
    alg = public_key(pem(make())).algorithm
    assert (await sent(wire, key=make(), alg=alg)).status == 202
    assert await code(await sent(wire)) == (401, "invalid_token")


# -- key sets


async def test_a_key_set_is_fetched_anew_for_a_key_that_is_new_and_outlives_its_server(
    start: Start,
) -> None:
    async with key_server() as keys:
        keys.hold(jwk(rsa_key(), "one"))
        wire = (await start(auth="jwt", jwks_url=keys.url, jwks_refresh=1e-6)).wire
        assert (await sent(wire, key=rsa_key(), alg="RS256", kid="one")).status == 202
        keys.hold(jwk(rsa_key(), "one"), jwk(ec_key(), "two"))
        assert (await sent(wire, key=ec_key(), alg="ES256", kid="two")).status == 202
    assert (await sent(wire, key=rsa_key(), alg="RS256", kid="one")).status == 202
    assert await code(await sent(wire, key=ec_key(), alg="ES256", kid="three")) == (401, "invalid_token")
    assert keys.asked == 2


async def test_made_up_key_ids_do_not_make_the_edge_ask(start: Start) -> None:
    async with key_server() as keys:
        keys.hold(jwk(rsa_key(), "one"), jwk(ec_key(), "two"))
        wire = (await start(auth="jwt", jwks_url=keys.url, jwks_refresh=3600)).wire
        for number in range(5):
            answer = await sent(wire, key=rsa_key(), alg="RS256", kid=f"k{number}")
            assert await code(answer) == (401, "invalid_token")
        assert keys.asked == 1


async def test_without_any_key_it_is_503_and_later_it_is_tried_again(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    wire = (await start(auth="jwt", jwks_file=path, jwks_refresh=1e-6)).wire
    assert await code(await sent(wire, key=rsa_key(), alg="RS256")) == (503, "keys_unavailable")
    path.write_text(json.dumps({"keys": [jwk(rsa_key(), "one")]}))
    assert (await sent(wire, key=rsa_key(), alg="RS256")).status == 202  # of one key no id is needed


async def test_keys_that_cannot_be_refreshed_are_good_for_a_day(tmp_path: Path) -> None:
    path, now = tmp_path / "keys.json", [1000.0]
    path.write_text(json.dumps({"keys": [jwk(rsa_key(), "one")]}))
    keys = Jwks(path, 1.0, lambda: now[0])
    await keys.start()
    path.unlink()
    now[0] += 23 * 3600
    assert (await keys.key("one")).algorithm == "RS256"
    now[0] += 2 * 3600
    with pytest.raises(Problem) as raised:
        await keys.key("one")
    assert raised.value.kind is Kind.KEYS_UNAVAILABLE
    await keys.stop()


def test_only_public_keys_for_signatures_are_taken_from_a_set_and_not_too_many() -> None:
    right = jwk(ec_key(), "right")
    secret = {"kty": "oct", "k": "AAAA", "kid": "secret"}
    listed = [secret, right | {"kid": "enc", "use": "enc"}, right | {"kid": "alg", "alg": "ES512"}, right]
    assert list(keys_in(json.dumps({"keys": listed}).encode())) == ["right"]
    many = [right | {"kid": str(number)} for number in range(150)]
    assert len(keys_in(json.dumps({"keys": many}).encode())) == 100


BAD_KEYS: dict[str, object] = {
    "no object": "one",
    "no point": {"kty": "EC", "crv": "P-256", "kid": "bad"},
    "no number": {"kty": "RSA", "kid": "bad", "n": 7, "e": "!"},
    "no type of key": {"kty": ["EC"], "kid": "bad"},
    "no id": jwk(ec_key(), "bad") | {"kid": {}},
}


@pytest.mark.parametrize("bad", BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_a_key_that_is_not_understood_voids_no_other_of_its_set(bad: object) -> None:
    right = jwk(ec_key(), "right")
    assert ["right"] == list(keys_in(json.dumps({"keys": [bad, right]}).encode()))
    with pytest.raises(CannotFetch, match="no key"):
        keys_in(json.dumps({"keys": [bad]}).encode())


# -- whose session it is

ALICE = Caller("acme", "alice", frozenset({Scope.READ, Scope.WRITE}))
ADMIN = Caller("acme", "root")
HERS, BOBS = SessionRecord(user="alice", sent=True), SessionRecord(user="bob", sent=True)


@pytest.mark.parametrize(
    ("who", "record", "need", "verdict"),
    [
        (ALICE, None, Need.SEND, Verdict.OPENS),
        (ALICE, None, Need.WATCH, Verdict.OPENS),
        (ALICE, None, Need.READ, Verdict.UNKNOWN),
        (ALICE, None, Need.CHANGE, Verdict.UNKNOWN),
        (ALICE, HERS, Need.SEND, Verdict.ALLOWED),
        (ALICE, HERS, Need.CHANGE, Verdict.ALLOWED),
        (ALICE, SessionRecord(user="alice"), Need.SEND, Verdict.KEEPS),
        (ALICE, SessionRecord(user="alice"), Need.WATCH, Verdict.ALLOWED),
        (ALICE, SessionRecord(user="alice"), Need.CHANGE, Verdict.ALLOWED),
        (ALICE, BOBS, Need.SEND, Verdict.FOREIGN),
        (ALICE, BOBS, Need.CONVERSE, Verdict.FOREIGN),
        (ALICE, BOBS, Need.WATCH, Verdict.FOREIGN),
        (ALICE, BOBS, Need.READ, Verdict.UNKNOWN),
        (ALICE, BOBS, Need.CHANGE, Verdict.UNKNOWN),
        (ADMIN, BOBS, Need.SEND, Verdict.ALLOWED),
        (ADMIN, None, Need.READ, Verdict.ALLOWED),
        (ADMIN, None, Need.SEND, Verdict.OPENS),
        (Caller("acme", "carol", sessions=("s1",)), BOBS, Need.WATCH, Verdict.ALLOWED),
        (Caller("acme", "carol", frozenset({Scope.READ}), ("s1",)), BOBS, Need.READ, Verdict.ALLOWED),
        (Caller("acme", "carol", frozenset({Scope.READ}), ("s1",)), None, Need.WATCH, Verdict.ALLOWED),
        (Caller("acme", "carol", ALICE.scopes, ("s1",)), BOBS, Need.SEND, Verdict.FOREIGN),
        (Caller("acme", "carol", ALICE.scopes, ("s*",)), BOBS, Need.READ, Verdict.UNKNOWN),
        (Caller("acme", "alice", ALICE.scopes, ("t*",)), HERS, Need.READ, Verdict.FOREIGN),
        (Caller("acme", "alice", ALICE.scopes, only="s2"), HERS, Need.READ, Verdict.FOREIGN),
        (Caller("acme", "root", sessions=("t*",)), BOBS, Need.READ, Verdict.FOREIGN),
    ],
)
def test_what_may_be_done_with_a_session(
    who: Caller, record: SessionRecord | None, need: Need, verdict: Verdict
) -> None:
    assert verdict is judge(who, "s1", record, need)


async def test_a_session_is_its_first_users_alone(wire: Wire, worker: FakeWorker) -> None:
    worker.answer_all("Hi")
    assert (await sent(wire, "alice")).status == 202
    await eventually(lambda: worker.waiting == 0, "the turn is taken")
    assert (await wire.request("GET", S1, bearer("alice"))).status == 200
    assert await code(await wire.request("GET", S1, bearer("bob"))) == (404, "unknown_session")
    assert await code(await sent(wire, "bob")) == (403, "foreign_session")


async def test_who_only_looked_keeps_the_session_by_sending(wire: Wire, worker: FakeWorker) -> None:
    key = SessionKey("acme", "s1")
    assert (await wire.request("GET", f"{S1}/events", bearer())).status == 200
    assert (SessionRecord(user="alice"), 1) == ((await worker.store.session(key))[0], 1)
    assert (await sent(wire)).status == 202
    record, _ = await worker.store.session(key)
    assert record == SessionRecord(user="alice", sent=True)


async def test_a_tenant_has_sessions_of_its_own(wire: Wire, worker: FakeWorker) -> None:
    assert (await sent(wire, "alice", tenant="acme")).status == 202
    assert (await sent(wire, "alice", tenant="other")).status == 202
    keys = [(await worker.next_turn()).key for _ in range(2)]
    assert sorted(map(str, keys)) == ["acme.s1", "other.s1"]


async def test_an_administrator_reaches_every_session_of_its_tenant(wire: Wire) -> None:
    await sent(wire, "alice")
    scope = f"{ALL} sessions:admin"
    assert (await wire.request("GET", S1, bearer("root", scope=scope))).status == 200
    foreign = await wire.request("GET", S1, bearer("root", scope=scope, tenant="other"))
    assert await code(foreign) == (404, "unknown_session")


async def test_a_session_that_a_service_began_is_nobodys_but_named_in_a_token(
    wire: Wire, worker: FakeWorker
) -> None:
    request = await wire.send("POST", "/v1/sessions/s2/messages", {"message": "Hello"}, **bearer("bob"))
    assert request.status == 202
    turn = await worker.next_turn()
    await worker.store.submit(SessionKey("acme", "s1"), turn.message, {})
    assert await code(await sent(wire, "alice")) == (403, "foreign_session")
    named = bearer("carol", sessions=["s1"])
    assert (await wire.request("GET", S1, named)).status == 200
    assert (await wire.request("GET", f"{S1}/events", named)).status == 200
    assert await code(await wire.send("POST", f"{S1}/interrupt", {}, **named)) == (404, "unknown_session")


async def test_after_its_deletion_the_name_stays_its_users_for_a_while(
    wire: Wire, worker: FakeWorker
) -> None:
    worker.answer_all("Hi")
    stream = await wire.post({"session_id": "s1", "message": "Hello"}, bearer("alice"))
    await stream.until("[DONE]")
    assert (await wire.send("DELETE", S1, **bearer("alice"))).status == 204
    assert await code(await wire.request("GET", S1, bearer("alice"))) == (404, "unknown_session")
    assert await code(await sent(wire, "bob")) == (403, "foreign_session")
    assert (await sent(wire, "alice")).status == 202


async def test_two_who_open_a_session_at_once_do_not_both_have_it(start: Start, tmp_path: Path) -> None:
    one, two = await start(**with_secret(tmp_path)), await start(**with_secret(tmp_path))
    bob = Caller("acme", "bob", ALICE.scopes)
    for number in range(10):
        key = SessionKey("acme", f"s{number}")
        outcomes = await gathered(
            one.edge.access.admit(ALICE, key, Need.SEND), two.edge.access.admit(bob, key, Need.SEND)
        )
        assert sorted(outcomes) == ["foreign_session", "let in"]


async def gathered(*admissions: Any) -> list[str]:
    """What each came to."""
    outcomes = await asyncio.gather(*admissions, return_exceptions=True)
    return [str(each.kind) if isinstance(each, Problem) else "let in" for each in outcomes]


async def test_with_authentication_off_nothing_is_stored(start: Start, worker: FakeWorker) -> None:
    wire = (await start()).wire
    worker.answer_all("Hi")
    stream = await wire.post({"session_id": "s1", "message": "Hello"})
    await stream.until("[DONE]")
    assert (None, 0) == await worker.store.session(SessionKey("default", "s1"))
