"""Who may do what: the I/O around ``caller.judge``, and the tickets.

A ticket is a random text; only its digest is stored, with what it lets in. So there is no key that edges
would have to share, NATS holds nothing that lets anybody in, and each edge can redeem it, once.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from hashlib import sha256
from math import ceil
from time import monotonic, time

from starlette.requests import HTTPConnection

from warmwire.broker.errors import Conflict, Unavailable
from warmwire.broker.nats.store import DELETED_KEPT, Store
from warmwire.broker.wire.messages import SessionRecord, TicketRecord
from warmwire.broker.wire.names import SessionKey
from warmwire.edge.access.caller import ANYBODY, Caller, Need, Scope, Verdict, judge
from warmwire.edge.access.tokens import Tokens
from warmwire.edge.errors import Kind, Problem
from warmwire.edge.settings import EdgeSettings
from warmwire.producer.manage import Management

SUBPROTOCOL = "warmwire"
"""What a WebSocket speaks."""
BEARER_PROTOCOL = "warmwire.bearer."
"""What a browser, which can set no header of a WebSocket, puts before its token among the subprotocols."""
REMEMBERED = 10_000
"""Sessions of which an edge remembers whose they are; past it the one asked for longest ago is forgotten."""
REMEMBERED_FOR = DELETED_KEPT / 6
"""Seconds of the same. Shorter than a deleted session's name stays its user's, so it is never wrong."""
TRIES = 4
"""Times that a record may change while one request is judged."""

_TICKET = re.compile(r"wwt_[A-Za-z0-9_-]{43}\Z")


Begin = Callable[[str], AbstractAsyncContextManager[None]]
"""Within it a session of the tenant begins, if it may have one more."""


class Access:
    """Lets callers in, and to sessions. With authentication off everybody may do everything."""

    def __init__(self, settings: EdgeSettings, store: Store, management: Management, begin: Begin) -> None:
        self._tokens = Tokens.of(settings)
        self._ticket_ttl = settings.ticket_ttl
        self._store = store
        self._management = management
        self._begin = begin
        self._users: OrderedDict[SessionKey, tuple[str, float]] = OrderedDict()

    async def start(self) -> None:
        """Fetch the keys, if they are to be fetched; that may fail, and is tried again when one is needed."""
        if self._tokens is not None:
            await self._tokens.start()

    async def stop(self) -> None:
        """Fetch no more."""
        if self._tokens is not None:
            await self._tokens.stop()

    @property
    def open(self) -> bool:
        """Whether authentication is off."""
        return self._tokens is None

    # -- who asks

    async def caller(self, http: HTTPConnection, *, tickets: bool = False) -> Caller:
        """Who asks, by a token, or a ticket where ``tickets`` are taken. Raises Problem, Unavailable."""
        if self._tokens is None:
            return ANYBODY
        token = _bearer(http)
        if token is not None:
            return await self._tokens.caller(token)
        ticket = http.query_params.get("ticket") if tickets else None
        if ticket is None:
            raise Problem(Kind.UNAUTHENTICATED, "a bearer token is needed in the Authorization header")
        return await self._ticketed(ticket)

    async def check_metrics(self, http: HTTPConnection) -> None:
        """Metrics are about every tenant: they take a scope of their own. Raises Problem, Unavailable."""
        if self._tokens is not None and (await self.caller(http)).lacks([Scope.METRICS]):
            raise Problem(Kind.MISSING_SCOPE, f"the token's scope lacks {Scope.METRICS}", "scope")

    # -- what they may do

    async def admit(self, caller: Caller, key: SessionKey, need: Need) -> None:
        """Let the caller do that with the session, which may become the caller's by it.

        Raises Problem, Unavailable.
        """
        if self._tokens is None:
            return None
        lacking = caller.lacks(need.scopes)
        if lacking is not None:
            raise Problem(Kind.MISSING_SCOPE, f"the token's scope lacks {lacking}", "scope")
        if caller.covers(key.session) and self._user_of(key) == caller.subject:
            return None
        for _ in range(TRIES):
            try:
                return await self._judge(caller, key, need)
            except Conflict:
                continue  # somebody has written it in this moment
        raise Unavailable("whose session it is changes all the time")

    def forget(self, key: SessionKey) -> None:
        """The session is deleted."""
        self._users.pop(key, None)

    async def _judge(self, caller: Caller, key: SessionKey, need: Need) -> None:
        record, sequence = await self._store.session(key)
        verdict = judge(caller, key.session, record, need)
        if verdict is Verdict.OPENS and await self._management.standing(key) is not None:
            verdict = Verdict.FOREIGN  # a service began it, or somebody before there was authentication
        if verdict in (Verdict.OPENS, Verdict.KEEPS):
            record = SessionRecord(user=caller.subject, sent=Scope.WRITE in need.scopes)
            async with self._begin(key.tenant) if record.sent else nullcontext():
                await self._store.put_session(key, record, sequence)
        if verdict is Verdict.FOREIGN:
            raise _foreign(key)
        if verdict is Verdict.UNKNOWN:
            raise Problem(Kind.UNKNOWN_SESSION, f"nobody has used session {key.session}")
        if record is not None and record.sent:
            self._remember(key, record.user)

    def _user_of(self, key: SessionKey) -> str | None:
        user, until = self._users.get(key, ("", 0.0))
        if monotonic() > until:
            return None
        self._users.move_to_end(key)
        return user

    def _remember(self, key: SessionKey, user: str) -> None:
        """Only what does not end by itself."""
        self._users[key] = user, monotonic() + REMEMBERED_FOR
        self._users.move_to_end(key)
        if len(self._users) > REMEMBERED:
            self._users.popitem(last=False)

    # -- tickets

    async def issue(self, caller: Caller, session: str) -> tuple[str, float]:
        """A ticket to that session, and when it expires (Unix seconds). Raises Problem, Unavailable."""
        key = SessionKey(caller.tenant, session)
        ticket = f"wwt_{secrets.token_urlsafe(32)}"
        expires = min(time() + self._ticket_ttl, caller.expires or float("inf"))
        if self.open:
            return ticket, expires  # a client need not know that nobody asks for it
        await self._may_look(caller, key)
        record = TicketRecord(
            tenant=caller.tenant,
            subject=caller.subject,
            scopes=tuple(sorted(caller.scopes)),
            sessions=caller.sessions,
            session=session,
            expires=expires,
            caller_expires=caller.expires,
        )
        await self._store.put_ticket(_digest(ticket), record, 0, _seconds_to(expires))
        return ticket, expires

    async def _may_look(self, caller: Caller, key: SessionKey) -> None:
        """All is judged again when the ticket is used; nothing begins here."""
        if caller.lacks([Scope.READ]) and caller.lacks([Scope.WRITE]):
            raise Problem(Kind.MISSING_SCOPE, f"the token's scope lacks {Scope.READ}", "scope")
        record, _ = await self._store.session(key)
        if judge(caller, key.session, record, Need.WATCH) is Verdict.FOREIGN:
            raise _foreign(key)

    async def redeem(self, caller: Caller, opens: str, *, resumes: bool) -> None:
        """Use the caller's ticket, if it is by one: for the stream of that name, which it may resume.

        Raises Problem, Unavailable.
        """
        if caller.ticket is None:
            return
        found = await self._store.ticket(caller.ticket)
        if found is None:
            raise _bad_ticket("unknown or expired")
        record, sequence = found
        if record.opened is None:
            await self._bind(caller.ticket, record, sequence, opens)
        elif not (resumes and record.opened == opens):
            raise _bad_ticket("used: it opens one stream, and resumes that one alone")

    async def rebind(self, caller: Caller, opens: str) -> None:
        """The caller's ticket, just redeemed, has opened another stream than was thought."""
        if caller.ticket is None:
            return
        found = await self._store.ticket(caller.ticket)
        if found is None:
            raise _bad_ticket("expired")
        await self._bind(caller.ticket, *found, opens)

    async def _bind(self, digest: str, record: TicketRecord, sequence: int, opens: str) -> None:
        opened = record.model_copy(update={"opened": opens})
        try:
            await self._store.put_ticket(digest, opened, sequence, _seconds_to(record.expires))
        except Conflict:
            raise _bad_ticket("used at this moment") from None

    async def _ticketed(self, ticket: str) -> Caller:
        digest = _digest(ticket)
        found = await self._store.ticket(digest) if _TICKET.match(ticket) else None
        if found is None or found[0].expires <= time():
            raise _bad_ticket("unknown or expired")
        record = found[0]
        return Caller(
            tenant=record.tenant,
            subject=record.subject,
            scopes=frozenset(Scope(scope) for scope in record.scopes),
            sessions=record.sessions,
            expires=record.caller_expires,
            only=record.session,
            ticket=digest,
        )


def subprotocol_of(http: HTTPConnection) -> str | None:
    """What the edge answers to a WebSocket's offer: never the token."""
    return SUBPROTOCOL if SUBPROTOCOL in http.scope.get("subprotocols", ()) else None


def _bearer(http: HTTPConnection) -> str | None:
    scheme, _, token = http.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    offered: list[str] = http.scope.get("subprotocols", [])
    tokens = [each.removeprefix(BEARER_PROTOCOL) for each in offered if each.startswith(BEARER_PROTOCOL)]
    return tokens[0] if tokens else None


def _digest(ticket: str) -> str:
    return sha256(ticket.encode()).hexdigest()


def _seconds_to(expires: float) -> int:
    return max(1, ceil(expires - time()))


def _foreign(key: SessionKey) -> Problem:
    return Problem(Kind.FOREIGN_SESSION, f"session {key.session} is not yours", "session_id")


def _bad_ticket(why: str) -> Problem:
    return Problem(Kind.INVALID_TICKET, f"the ticket is {why}", "ticket")
