"""The I/O around one session: carries out what ``session`` decides and tells it what came of it.

Commands that are answered run in tasks of their own, one at a time per session; deltas take no task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time

from warmwire.broker import telemetry
from warmwire.broker.errors import BadInput, Unavailable
from warmwire.broker.logs import logger
from warmwire.broker.nats.bus import Arrived, Bus, Subscription
from warmwire.broker.nats.pull import NAK
from warmwire.broker.nats.sender import Sender
from warmwire.broker.nats.store import Store
from warmwire.broker.tasks import Tasks
from warmwire.broker.wire.messages import (
    Close,
    Control,
    Forward,
    ForwardReply,
    Interrupt,
    InterruptReply,
    Permission,
    PermissionReply,
    Release,
    Replay,
    Started,
    decode,
    decode_control,
)
from warmwire.broker.wire.names import SessionKey, Subjects
from warmwire.worker.cli import said
from warmwire.worker.credentials import Keys
from warmwire.worker.errors import CliError, CredentialRefused, ErrorCode
from warmwire.worker.pool import policy
from warmwire.worker.pool.supply import Supply
from warmwire.worker.pool.warm import Warm
from warmwire.worker.sessions import transcript
from warmwire.worker.sessions.owner_store import Lost, OwnerStore
from warmwire.worker.sessions.permissions import Answer
from warmwire.worker.sessions.session import Session
from warmwire.worker.sessions.trail import Trail
from warmwire.worker.sessions.turn import (
    Ack,
    AppendTranscript,
    Command,
    Ended,
    FindHead,
    Give,
    Held,
    KeepInterrupt,
    KillCli,
    NeedCli,
    Publish,
    PutRecord,
    ReadRecord,
    Rules,
    SignalCli,
    Stage,
    TerminateCli,
)
from warmwire.worker.settings import WorkerSettings

log = logger(__name__)

Ending = Coroutine[object, object, None]
"""A host's end, still to be carried out: not by the host itself, as it ends the host's own tasks."""


@dataclass(frozen=True, slots=True)
class Services:
    """What every session of a worker uses."""

    worker: str
    settings: WorkerSettings
    supply: Supply
    folder: Path
    bus: Bus
    store: Store
    subjects: Subjects
    sender: Sender
    ended: Callable[[SessionKey, Ended], None]
    keys: Keys

    async def tell(self, subject: str, data: bytes) -> None:
        """Once; it does without where NATS is away."""
        try:
            await self.bus.publish(subject, data)
        except Unavailable as error:
            log.warning("not told; the server will find out by itself", error=str(error))


class Host:
    """One session that this worker owns. ``open`` it, ``offer`` messages, ``close`` it."""

    def __init__(
        self,
        services: Services,
        key: SessionKey,
        epoch: int,
        nonce: str,
        leave: Callable[[Host, Ending], None],
    ) -> None:
        self.key = key
        self.closing = False
        self.given_away = False  # somebody wants another worker to have it
        self.closed = asyncio.Event()
        self._services = services
        self._store = OwnerStore(services.bus, services.store, key, epoch, nonce)
        self._leave = leave
        settings, recipe = services.settings, services.supply.recipe
        self._dialect = recipe.dialect()
        rules = Rules(settings.stall_timeout, settings.permission_timeout, recipe.profiles)
        self._session = Session(key, services.worker, epoch, monotonic(), rules, self._dialect)
        self._events_subject = services.subjects.events(key)
        folder = services.folder / "sessions" / key.tenant / key.session
        self._cli = Warm(services.supply, folder, self._lines, self._cli_failed, self._dialect, key)
        self._subscriptions: list[Subscription] = []
        self._tasks = Tasks()
        self._trail = Trail(key, services.worker, f"{services.subjects.prefix}.req")

    # -- life

    async def open(self, *, had_owner: bool) -> None:
        """Listen for what is addressed to the owner, and take over the transcript. Raises Lost."""
        subjects, bus = self._services.subjects, self._services.bus
        self._subscriptions = [await bus.subscribe(subjects.control(self.key), self._asked)]
        bound = await self._store.begin()
        self._session.binding.take_over(bound, begun=self._store.begun)
        if had_owner:
            await self._store.append(transcript.epoch_entry(self._session.epoch))
        # Only now: a turn that began any earlier would not know the conversation.
        self._subscriptions.append(await bus.subscribe(subjects.forwards(self.key), self._forwarded))

    @property
    def active(self) -> bool:
        """Whether a turn is at hand."""
        return self._session.stage is not Stage.IDLE

    @property
    def has_process(self) -> bool:
        """Whether a CLI runs for it, frozen or not."""
        return self._cli.running

    def seen(self) -> policy.Session[SessionKey]:
        """As the pool's policy sees it."""
        session = self._session
        return policy.Session(
            self.key, self._cli.tier, session.idle_since, in_flight=self.active or bool(session.waiting)
        )

    def held(self) -> Iterator[Held]:
        """The messages that this host answers for."""
        if self._session.turn is not None:
            yield self._session.turn.held
        yield from self._session.waiting.values()

    def offer(self, held: Held) -> None:
        """A message of this session."""
        self._run(self._session.offer(held))

    def tick(self, now: float) -> None:
        """Time has passed."""
        self._run(self._session.tick(now))
        if self.given_away:
            self._give_away()

    def _give_away(self) -> None:
        """As soon as no turn is at hand, which may be now."""
        self.given_away = True
        self.drain()
        if not self.active:
            self._let_go()

    def _let_go(self) -> None:
        """Once: a second end would take the folder from whoever has the session next."""
        if not self.closing:
            self.closing = True
            self._leave(self, self.close())

    def drain(self) -> None:
        """Begin no further turn."""
        self._session.draining = True

    async def close(self, within: float | None = None) -> None:
        """Give the session up: what is unfinished goes back to the queue, the record names nobody.

        A worker that goes on living tries for as long as it takes: while the record names it nobody else
        claims the session. One that leaves has so many seconds; then its silence has to do.
        """
        self.closing = True
        self.drain()
        unfinished = list(self.held())
        if self.active:
            self._cli.kill()  # before anybody else may begin the turn again
        await self._stop_work()
        try:
            async with asyncio.timeout(within):
                await self._store.release()
        except Lost:
            log.warning("session lost to another worker", session=str(self.key))
        except TimeoutError:
            log.warning("session not released; another worker waits until this one is silent")
        for held in unfinished:
            await self._services.tell(held.ack, NAK)
        await self._cli.end()
        self.closed.set()

    def freeze(self) -> None:
        """Between turns: stop the CLI until it is needed."""
        self._cli.freeze()

    def hold(self) -> None:
        """Hold still: stop the CLI, and whatever CLI is being started."""
        self._cli.hold()

    def go_on(self) -> None:
        """Hold still no longer; the silence of that time says nothing about the CLI."""
        self._session.thawed(monotonic())
        self._cli.go_on()

    async def check(self) -> None:
        """Leave if the session has another owner by now."""
        try:
            await self._store.check()
        except Lost:
            self._lose()

    def _lose(self) -> None:
        if not self.closing:
            telemetry.lost_sessions.add(1)
            log.warning("session lost to another worker", session=str(self.key))
            self.closing = True
            self._leave(self, self.abandon())

    async def abandon(self) -> None:
        """Somebody else owns the session: stop at once, answer for nothing."""
        self.closing = True
        self._cli.kill()
        self._services.sender.forget(self._events_subject)
        await self._stop_work()
        await self._cli.end()
        self.closed.set()

    async def _stop_work(self) -> None:
        for subscription in self._subscriptions:
            await subscription.unsubscribe()
        await self._tasks.stop()
        self._trail.drop("left to others")

    # -- carrying out commands

    def _run(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Publish():
                    self._services.sender.send(self._events_subject, command.data)
                case Give():
                    self._give(command.line)
                case SignalCli():
                    self._cli.interrupt()
                case TerminateCli():
                    self._cli.terminate()
                case KillCli():
                    self._cli.kill()
                case Ended():
                    self._trail.ended(command.end)
                    self._services.ended(self.key, command)
                case KeepInterrupt():
                    self._tasks.begin(self._store.keep_interrupt(command.turn), "keep an interrupt")
                case _:
                    self._tasks.begin(self._answer(command), "carry out a command")

    async def _answer(self, command: Command) -> None:
        try:
            self._trail.before(command, self._session.turn)
            commands = await self._carried_out(command)
            self._trail.after(self._session.turn)
            self._run(commands)
        except Lost:
            self._lose()

    async def _carried_out(self, command: Command) -> list[Command]:
        try:
            return await self._carry_out(command)
        except BadInput as error:
            log.warning("not read, or not stored: the turn fails", session=str(self.key), error=str(error))
            return self._session.cannot(str(error), monotonic())

    async def _carry_out(self, command: Command) -> list[Command]:
        match command:
            case FindHead(after):
                return self._session.head(await self._store.head(after), monotonic())
            case ReadRecord(turn):
                return await self._read_record(turn)
            case PutRecord(turn, record, bound):
                await self._store.put_turn(turn, record, bound)
                return self._session.stored(monotonic())
            case AppendTranscript(entries):
                for part in transcript.appends(entries):
                    await self._store.append(part)
                return self._session.appended()
            case NeedCli():
                return await self._need_cli(command)
            case Ack(held):
                await self._store.ack(held.ack)
                return self._session.acked(monotonic())
        raise AssertionError(f"no way to carry out {command}")

    async def _read_record(self, turn: str) -> list[Command]:
        record, interrupted = await self._store.turn(turn)
        self._trail.begin(self._session.turn, record)
        answered = None
        if isinstance(record, Started):
            answered = transcript.answered(await self._store.transcript(), turn)
        return self._session.record(record, interrupted, monotonic(), answered)

    # -- the CLI

    async def _need_cli(self, need: NeedCli) -> list[Command]:
        try:
            token = self._services.keys.open(need.credential, self.key, time())
            how = await self._cli.provide(need.setup, self._conversation, token, self._trail.chat)
        except (CliError, CredentialRefused) as error:
            self._trail.provided(None)
            log.error("no CLI", session=str(self.key), error=str(error))  # noqa: TRY400 - its text says it all
            return self._session.cli_failed(error.code, monotonic())
        except Exception:  # a fault of ours; left alone, the turn would never end
            self._trail.provided(None)
            log.exception("no CLI", session=str(self.key))
            return self._session.cli_failed(ErrorCode.INTERNAL, monotonic())
        self._trail.provided(how)
        return self._session.cli_ready(monotonic())

    async def _conversation(self) -> bytes:
        return transcript.conversation(await self._store.transcript())

    def _lines(self, lines: list[bytes]) -> None:
        now = monotonic()
        for raw in lines:
            for line in self._dialect.read(raw):
                if type(line) is not said.StreamEvent:  # nearly every line is one
                    self._notice(line)
                self._run(self._session.line(line, now))

    def _notice(self, line: said.Line) -> None:
        self._trail.noticed(line)
        match line:
            case said.ControlReply(ok=False):
                self._refused(line)
            case said.Ignored(unknown=True):
                telemetry.unknown_lines.add(1)
                log.debug("a line of an unknown type", session=str(self.key), type=line.type)
            case _:
                pass  # the session's business alone

    def _refused(self, reply: said.ControlReply) -> None:
        """Without what it was told between turns a process is of no use to the session."""
        if reply.request_id in self._dialect.needed:
            log.error("the CLI refused", request=reply.request_id, error=reply.error)
            self._cli.kill()
            self._cli_failed(ErrorCode.CLI_FAILED)

    def _cli_failed(self, code: ErrorCode) -> None:
        if not self.closing:
            self._run(self._session.cli_failed(code, monotonic()))

    def _give(self, line: bytes) -> None:
        try:
            self._cli.write(line)
        except CliError as error:
            loss = self._cli.loss
            self._cli.kill()
            self._cli_failed(loss if loss is ErrorCode.CLI_START_FAILED else error.code)

    # -- what others ask

    def _asked(self, message: Arrived) -> None:
        try:
            request = decode_control(message.data)
        except BadInput as error:
            telemetry.alien.add(1)
            log.warning("alien request dropped", subject=message.subject, error=str(error))
            return
        self._tasks.begin(self._reply(message.reply, request), "reply")

    async def _reply(self, reply: str, request: Control) -> None:
        answer = self._act_on(request)
        await self._services.sender.flush()  # what has happened before is told before
        if reply:
            await self._services.tell(reply, answer)

    def _act_on(self, request: Control) -> bytes:
        match request:
            case Replay():
                return self._session.view(request).encode()
            case Interrupt(turn=turn):
                stopped, commands = self._session.interrupt(turn, monotonic())
                self._run(commands)
                return InterruptReply(turn=stopped).encode()
            case Permission(request=asked, turn=turn):
                answer = Answer(request.allow, request.instead, request.reason)
                outcome, commands = self._session.permit(asked, answer, turn)
                self._run(commands)
                return PermissionReply(outcome=outcome).encode()
            case Close():
                self._let_go()
                return b"{}"
            case Release():
                self._give_away()
                return b"{}"

    def _forwarded(self, message: Arrived) -> None:
        try:
            forward = decode(Forward, message.data)
            held = Held.read(
                forward.data.encode(),
                forward.sequence,
                forward.ack,
                forward.deliveries,
                forward.headers.get("traceparent"),
            )
        except BadInput as error:
            telemetry.alien.add(1)
            log.warning("alien forward dropped", subject=message.subject, error=str(error))
            return
        if not self.closing:
            self.offer(held)
        self._tasks.begin(
            self._services.tell(message.reply, ForwardReply(mine=not self.closing).encode()), "reply"
        )
