"""The emulator's process: one thread and one select for stdin, SIGINT and the time of the next delta."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed knows only `signal`
import posix
import select
import time

from warmwire.worker.emulation.codec import decode, line, refuse, write
from warmwire.worker.emulation.session import DEFAULT_MODEL, open_session
from warmwire.worker.emulation.settings import HOUR, Settings
from warmwire.worker.emulation.turn import VERSION, Message, Turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from warmwire.worker.emulation.codec import Json
    from warmwire.worker.emulation.session import Session
    from warmwire.worker.emulation.turn import Step

TOKEN = "CLAUDE_CODE_OAUTH_TOKEN"  # noqa: S105 - the name of one
CHUNK = 65536  # bytes read from stdin at a time


class Emulator:
    def __init__(self, session: Session, settings: Settings, env: Mapping[str, str]) -> None:
        self.session, self.settings = session, settings
        self.queue: list[Message] = []
        self.seen: set[str] = set()  # uuids of messages, whatever became of them
        self.busy = self.interrupting = self.closed = self.signalled = self.answered = False
        self.turn: Turn | None = None  # the one that runs
        self.unread = b""
        self.takes_tokens = not env.get("ANTHROPIC_API_KEY")  # it wins over a token
        session.token = env.get("ANTHROPIC_API_KEY") or env.get(TOKEN, "")
        self.wakeup, alarm = posix.pipe()
        self.inputs = [0, self.wakeup]
        _signal.signal(_signal.SIGINT, lambda *_: posix.write(alarm, b"!"))

    def run(self) -> int:
        while self.queue or not self.closed:
            if self.queue:
                self.play(Turn(self.session, self.queue.pop(0), self.settings))
            else:
                self.listen(None)
        return int(self.session.failed and not self.signalled)

    def play(self, turn: Turn) -> None:
        self.busy, self.interrupting, self.turn = True, False, turn
        for step in turn.steps():
            self.perform(step, turn.begun)
            if self.interrupting:
                for last in turn.interrupted():
                    self.perform(last, turn.begun)
                break
        self.busy, self.turn = False, None

    def perform(self, step: Step, begun: float) -> None:
        if isinstance(step, bytes):
            write(1, step)
        elif isinstance(step, dict):
            self.session.remember(step)
        elif isinstance(step, str):
            misbehave(step)
        else:
            self.wait(begun + step)

    def wait(self, deadline: float) -> None:
        """Listen until the deadline, and at least once: input is heard even when deltas are overdue."""
        self.answered = False
        while True:
            self.listen(min(max(deadline - time.monotonic(), 0), HOUR))
            if self.interrupting or self.answered or time.monotonic() >= deadline:
                return

    def listen(self, timeout: float | None) -> None:
        ready = select.select(self.inputs, (), (), timeout)[0]
        if self.wakeup in ready:
            self.signalled = True
            self.stop()
        elif ready:
            self.read()

    def read(self) -> None:
        chunk = posix.read(0, CHUNK)
        if chunk:
            *lines, self.unread = (self.unread + chunk).split(b"\n")
        else:
            lines, self.closed, self.inputs = [self.unread], True, [self.wakeup]
        for raw in lines:
            if raw.strip():
                self.handle(raw)

    def handle(self, raw: bytes) -> None:
        try:
            value = decode(raw)
        except ValueError:
            refuse(f"Error parsing streaming input line (type=unknown, {len(raw)} chars): SyntaxError")
        if isinstance(value, dict) and value.get("type") == "user":
            self.accept(value)
        elif isinstance(value, dict) and value.get("type") == "control_request":
            self.control(value)
        elif isinstance(value, dict) and value.get("type") == "control_response":
            self.take(value.get("response"))
        elif isinstance(value, dict) and value.get("type") == "update_environment_variables":
            self.update(value.get("variables"))
        # Everything else is ignored, as the real CLI does.

    def take(self, response: object) -> None:
        """The answer to a question, perhaps."""
        if isinstance(response, dict) and self.turn is not None:
            verdict = response.get("response")
            name = str(response.get("request_id"))
            self.answered = self.turn.answered(name, verdict if isinstance(verdict, dict) else {})

    def update(self, variables: object) -> None:
        if isinstance(variables, dict) and self.takes_tokens:
            self.session.token = str(variables.get(TOKEN, self.session.token))

    def accept(self, value: Json) -> None:
        body = value.get("message")
        role = body.get("role", "undefined") if isinstance(body, dict) else "undefined"
        if role != "user":
            refuse(f"Error: Expected message role 'user', got '{role}'")
        message = Message(value["message"].get("content", ""), value.get("uuid"))
        if message.uuid in self.seen:
            write(1, message.echo(self.session.id) if self.session.replays else b"")
        elif message.uuid in self.session.answered:
            write(1, self.session.lifecycle(message.uuid, "completed"))
        else:
            self.queue.append(message)
            write(1, self.session.lifecycle(message.uuid, "queued"))
        if message.uuid:
            self.seen.add(message.uuid)

    def control(self, value: Json) -> None:
        request = value.get("request")
        if not isinstance(request, dict):
            refuse("Error: Missing request on control_request")
        reply = self.reply(str(request.get("subtype")), request)
        outcome = {
            "subtype": "error" if "error" in reply else "success",
            "request_id": value.get("request_id"),
        }
        write(1, line(type="control_response", response={**outcome, **reply}))
        if request.get("subtype") == "end_session":
            self.stop()

    def reply(self, subtype: str, request: Json) -> Json:  # noqa: PLR0911 - one for each request
        match subtype:
            case "initialize":
                return {"response": self.introduction()}
            case "get_session_cost":
                return {"response": {"text": f"Estimated cost:        ${self.cost() / 10**6:.4f}"}}
            case "interrupt":
                return {"response": self.interrupt(bool(request.get("cancel_queued")))}
            case "set_model":
                return {"response": {"model": self.set_model(request.get("model"))}}
            case "set_permission_mode":
                return self.set_permission_mode(str(request.get("mode")))
            case "apply_flag_settings" | "set_max_thinking_tokens" | "end_session":
                self.apply(request.get("settings"))
                return {}
        why = f"Unsupported control request subtype: {subtype}"
        return {"error": why, "error_code": "unsupported_request"}

    def cost(self) -> int:
        """Microdollars of the process, the running turn's included."""
        return self.session.microdollars + (self.turn.spent() if self.turn is not None else 0)

    def introduction(self) -> Json:
        about = {"value": "default", "displayName": "Emulator", "description": "A stand-in; asks no model"}
        return {
            "commands": [],
            "agents": [],
            "output_style": "default",
            "models": [about],
            "account": {"tokenSource": "none", "apiKeySource": "none"},
            "pid": posix.getpid(),
            "claude_code_version": VERSION,
            "current_permission_mode": self.session.permission_mode,
            "session_state": "running" if self.busy else "idle",
            "capabilities": [],
        }

    def interrupt(self, cancel_queued: bool) -> Json:
        """Stops what runs; what waits runs next, unless it is to be cancelled too."""
        waiting = [message.uuid for message in self.queue if message.uuid]
        self.interrupting = self.busy
        if not cancel_queued:
            return {"still_queued": waiting}
        self.queue.clear()
        write(1, b"".join(self.session.lifecycle(uuid, "cancelled") for uuid in waiting))
        return {"still_queued": [], "cancelled": waiting}

    def set_model(self, model: str | None) -> str:
        self.session.model = model or DEFAULT_MODEL
        if model:
            text = f"<local-command-stdout>Set model to `{model}`</local-command-stdout>"
            write(1, Message(text).echo(self.session.id))
        return self.session.model

    def apply(self, settings: object) -> None:
        """Of all settings it knows the model."""
        if isinstance(settings, dict) and "model" in settings:
            self.set_model(settings["model"])

    def set_permission_mode(self, mode: str) -> Json:
        if mode == "bypassPermissions" and not self.session.may_bypass:
            why = f"Cannot set permission mode to {mode} because the session was not launched with it"
            return {"error": why, "error_code": "bypass_not_launched"}
        self.session.permission_mode = mode
        return {"response": {"mode": mode}}

    def stop(self) -> None:
        """End what runs as interrupted and take nothing more."""
        self.queue.clear()
        self.closed, self.interrupting = True, self.busy


def misbehave(fault: str) -> None:
    if fault == "crash":
        posix.kill(posix.getpid(), _signal.SIGKILL)
    if fault == "child":  # as a tool in the background: in a session of its own, with our pipes
        posix.posix_spawnp("sleep", ["sleep", "600"], posix.environ, setsid=True)
        return
    for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
        _signal.signal(number, _signal.SIG_IGN)
    while True:  # deaf: only SIGKILL ends it
        time.sleep(HOUR)


def end_at_once(number: int, _frame: object) -> NoReturn:
    posix._exit(0 if number == _signal.SIGINT else 128 + number)  # noqa: SLF001 - it has no other name


def main(argv: list[str], env: Mapping[str, str]) -> int:
    # A value has to stand behind an equals sign; a flag that is not known is no error.
    flags = {flag: value for flag, _, value in (argument.partition("=") for argument in argv)}
    if "--version" in flags:
        write(1, f"{VERSION}\n".encode())
        return 0
    for number in (_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT):
        _signal.signal(number, end_at_once)
    settings = Settings(env)
    if settings.fault == "exit-at-start":
        refuse("emulator: exits at its start, as WARMWIRE_EMULATOR_FAULT asks")
    time.sleep(settings.startup)
    try:
        return Emulator(open_session(flags, env), settings, env).run()
    except BrokenPipeError:
        refuse("emulator: nobody reads stdout any more")
