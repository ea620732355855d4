"""One turn: what the emulator says to a message, line by line and with the time of each."""

from __future__ import annotations

import posix
import time

from warmwire.worker.emulation.codec import encode_text, line, new_uuid, timestamp, usage
from warmwire.worker.emulation.session import INTERRUPTED, text_of
from warmwire.worker.emulation.settings import API_ERRORS, UNAUTHORIZED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from warmwire.worker.emulation.codec import Json
    from warmwire.worker.emulation.session import Session
    from warmwire.worker.emulation.settings import Settings

    # What to do next: wait until so many seconds after the turn began (float), write to stdout (bytes), add
    # an entry to the transcript (dict), or misbehave in the named way (str).
    Step: TypeAlias = float | bytes | Json | str

VERSION = "0.1.0 (warmwire emulator)"
FOREVER = float("inf")
QUOTE = 80  # characters of a message that the answer repeats
BAD_LINE = b'{"type":"stream_event","event":{"ty\xff\xfe this line is not JSON\n'
# Faults in the middle of an answer, as the step that does it.
MISBEHAVIOUR: dict[str, Step] = {
    "crash": "crash",
    "deaf": "deaf",
    "hang": FOREVER,
    "bad-line": BAD_LINE,
    "child": "child",
}
MORE = ("Here", "are", "some", "more", "words,", "because", "a", "longer", "answer", "was", "asked", "for.")


def answer(text: str, earlier: list[str], deltas: int, script: str = "") -> list[str]:
    """The answer to `text`, in the pieces that its deltas carry; with a `script` it is that."""
    if text.strip() == "recall":
        return divide(("\n".join(earlier) or "(no earlier messages)").split(" "), deltas)
    if script:
        return divide(script.split(" "), deltas)
    quote = " ".join(text.split())
    quote = quote if len(quote) <= QUOTE else quote[: QUOTE - 1] + "…"
    greeting = f'Hello! You wrote: "{quote}". I am the warmwire emulator, a stand-in for a real model.'
    words = greeting.split(" ")
    words += MORE * ((deltas - len(words)) // len(MORE) + 1)
    return divide(words, deltas)


def divide(words: list[str], deltas: int) -> list[str]:
    """The words in `deltas` pieces, or one piece for each if they are fewer or 0 deltas are wished for."""
    spaced = [word + " " for word in words[:-1]] + words[-1:]
    if not 0 < deltas < len(spaced):
        return spaced
    ends = [len(spaced) * n // deltas for n in range(deltas + 1)]
    return ["".join(spaced[ends[n] : ends[n + 1]]) for n in range(deltas)]


class Message:
    """A user message as it came in."""

    def __init__(self, content: object, uuid: str | None = None) -> None:
        self.content = content
        self.uuid = uuid
        self.text = text_of(content)
        self.uuids = {"user_message_uuids": [uuid]} if uuid else {}
        self.asked = {"user_message_uuid": uuid, **self.uuids} if uuid else {}

    def echo(self, session_id: str) -> bytes:
        """What --replay-user-messages asks for."""
        ids = {"session_id": session_id, "parent_tool_use_id": None, "uuid": self.uuid or new_uuid()}
        message = {"role": "user", "content": self.content}
        return line(type="user", message=message, **ids, timestamp=timestamp(), isReplay=True)


class Turn:
    """The answer to one message as a series of steps; it never reads, writes or waits itself."""

    def __init__(self, session: Session, message: Message, settings: Settings) -> None:
        self.session, self.message, self.settings = session, message, settings
        self.fault = settings.fault_for(message.text)
        self.pieces = answer(message.text, session.earlier, settings.deltas, settings.script)
        if self.fault == "long-line":
            self.pieces[0] = "x" * settings.count
        self.begun = time.monotonic()
        self.due = settings.ttft  # seconds after the start at which the next delta is due
        self.read = self.sent = 0  # words taken for tokens, deltas
        self.said: list[str] = []  # texts of the open message's deltas
        self.open = False  # between message_start and message_stop
        self.api_id, self.model = new_uuid(), session.model
        self.frame = (b"", b"", b"")  # a delta's line without its text and number
        self.unsaved: list[Json] = []  # transcript entries
        self.unmirrored: list[Json] = []
        self.messages = 1
        self.question: str | None = None  # the name of the one that waits for its answer
        self.verdict: Json = {"behavior": "allow"}
        self.ttft: int | None = None  # milliseconds to the first message

    def steps(self) -> Iterator[Step]:
        yield from self.prepare()
        if self.fault == "error" or self.settings.refuses(self.session.token):
            yield from self.fail()
            return
        if self.fault == "retry":
            yield from self.cut_message()
        if self.fault in ("tool", "ask"):
            yield from self.use_tool()
        yield from self.begin_message()
        stop = self.settings.count if self.fault in MISBEHAVIOUR else len(self.pieces)
        yield from self.speak(self.pieces[:stop])
        if self.fault in MISBEHAVIOUR:
            yield MISBEHAVIOUR[self.fault]
        yield from self.speak(self.pieces[stop:])
        yield self.assistant(self.block(), "end_turn")
        yield from self.end_message("end_turn")
        answered = {"stop_reason": "end_turn", "api_error_status": None, "result": "".join(self.said)}
        yield from self.finish("completed", "success", **answered, ttft_stream_ms=self.ttft)

    def interrupted(self) -> Iterator[Step]:
        """What comes instead of the remaining steps."""
        if self.question is not None:
            yield line(type="control_cancel_request", request_id=self.question)
        if self.open and self.said:
            yield self.assistant(self.block(), None, aborted=True)
        yield self.user(INTERRUPTED)
        if self.open:
            yield from self.end_message(None)
        self.messages += 1
        yield from self.finish("aborted_streaming", "error_during_execution", errors=["interrupted"])

    def prepare(self) -> Iterator[Step]:
        session, message = self.session, self.message
        yield session.lifecycle(message.uuid, "started")
        self.entry("user", {"role": "user", "content": message.content}, message.uuid)
        yield from self.save()
        session.earlier.append(message.text)
        about = {"cwd": session.cwd, "session_id": session.id, "tools": [], "mcp_servers": []}
        about |= {"model": session.model, "permissionMode": session.permission_mode, "apiKeySource": "none"}
        about |= {"claude_code_version": VERSION, "uuid": new_uuid()}
        yield line(type="system", subtype="init", **about, **message.uuids)
        yield self.requesting()
        if session.replays:
            yield message.echo(session.id)

    def begin_message(self) -> Iterator[Step]:
        yield self.due
        self.api_id, self.said, self.open = "msg_" + posix.urandom(12).hex(), [], True
        self.read += len(self.message.text.split())
        self.ttft = self.elapsed() if self.ttft is None else self.ttft
        start = {"type": "message_start", "message": self.body([])}
        yield self.event(start, {"ttft_ms": self.ttft}, **self.message.asked)
        block = {"type": "text", "text": ""}
        yield self.event({"type": "content_block_start", "index": 0, "content_block": block})
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ""}}
        before, _, rest = self.event(delta).partition(b'""')
        cut = rest.index(b'"uuid":"') + 32  # the last twelve digits of a delta's uuid are its number
        self.frame = (before, rest[:cut], rest[cut + 12 :])
        yield self.mirror()

    def speak(self, pieces: list[str]) -> Iterator[Step]:
        """The hot path: what does not change from delta to delta was encoded when the message began."""
        before, between, after = self.frame
        for piece in pieces:
            yield self.due
            self.due += self.settings.gap
            self.sent += 1
            text = f"{time.time_ns()} {self.sent} {piece}" if self.settings.stamp else piece
            self.said.append(text)
            yield b"%b%b%b%012x%b" % (before, encode_text(text), between, self.sent, after)

    def end_message(self, stop_reason: str | None, index: int = 0) -> Iterator[Step]:
        yield self.event({"type": "content_block_stop", "index": index})
        delta = {"stop_reason": stop_reason, "stop_sequence": None}
        yield self.event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": self.sent}})
        yield self.event({"type": "message_stop"})
        self.open = False

    def cut_message(self) -> Iterator[Step]:
        """The API breaks off; the CLI asks again and begins from the start."""
        yield from self.begin_message()
        yield from self.speak(self.pieces[: self.settings.count])
        yield self.event({"type": "content_block_stop", "index": 0})
        yield self.event({"type": "message_stop"})
        self.open = False
        self.due += self.settings.ttft
        wait = {"attempt": 1, "max_retries": 10, "retry_delay_ms": int(self.settings.ttft * 1000)}
        why = {"error_status": None, "error": "unknown", "session_id": self.session.id, "uuid": new_uuid()}
        yield line(type="system", subtype="api_retry", **wait, **why)

    def use_tool(self) -> Iterator[Step]:
        """A first message that ends in a tool call, and the tool's result. Nothing is run."""
        tool_id = "toolu_" + posix.urandom(12).hex()
        call = {"type": "tool_use", "id": tool_id, "name": "Bash", "input": {}}
        yield from self.begin_message()
        yield from self.speak(["Let me look."])
        yield self.assistant(self.block(), "tool_use")
        yield self.event({"type": "content_block_stop", "index": 0})
        yield self.event({"type": "content_block_start", "index": 1, "content_block": call})
        for part in ('{"command":', ' "echo emulated"}'):
            delta = {"type": "input_json_delta", "partial_json": part}
            yield self.event({"type": "content_block_delta", "index": 1, "delta": delta})
        yield self.assistant({**call, "input": {"command": "echo emulated"}}, "tool_use")
        yield from self.end_message("tool_use", index=1)
        if self.fault == "ask":
            yield from self.ask(tool_id)
        told = self.verdict.get("message")
        outcome = {"content": told or "emulated", "is_error": self.verdict.get("behavior") != "allow"}
        yield self.user([{"tool_use_id": tool_id, "type": "tool_result", **outcome}])
        yield from self.save()
        self.messages += 1
        self.due += self.settings.ttft
        yield self.requesting()

    def ask(self, tool_id: str) -> Iterator[Step]:
        """May the tool be used? Waits for the answer, for ever if need be."""
        self.question = new_uuid()
        wish = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": "echo emulated"}}
        yield line(type="control_request", request_id=self.question, request={**wish, "tool_use_id": tool_id})
        yield FOREVER

    def answered(self, name: str, verdict: Json) -> bool:
        """Whether that was the question that waits."""
        if name != self.question:
            return False
        self.question, self.verdict = None, verdict
        return True

    def fail(self) -> Iterator[Step]:
        """The API refuses; the CLI says so in a message of its own making, and repeats what it must not."""
        status = self.settings.count if self.fault == "error" else UNAUTHORIZED
        kind, error = API_ERRORS[status]
        text = f"API Error: {status} {kind} (made up by the warmwire emulator)"
        if self.settings.refuses(self.session.token):
            text += f" credential: {self.session.token}"
        about = {"api_error_status": status, "api_error_type": kind}
        yield self.due
        self.said, self.model = [text], "<synthetic>"
        yield self.assistant(self.block(), "stop_sequence", error=error, is_api_error_message=True, **about)
        self.unsaved[-1] |= {"error": error, "isApiErrorMessage": True, "apiErrorStatus": status}
        yield from self.finish("api_error", "success", stop_reason="stop_sequence", **about, result=text)

    def finish(self, reason: str, subtype: str, **more: object) -> Iterator[Step]:
        """To disk, into the mirror, then the result: it is the commit point."""
        yield from self.save()
        yield self.mirror()
        session, elapsed = self.session, self.elapsed()
        session.failed = reason != "completed"
        spent = self.spent()
        session.microdollars += spent
        total = usage(0, 0) if session.failed else usage(self.read, self.sent)
        result: Json = {"duration_api_ms": elapsed, "stop_reason": None, "session_id": session.id}
        result |= {"total_cost_usd": session.microdollars / 10**6, "usage": total, "permission_denials": []}
        result |= {"terminal_reason": reason, "is_error": session.failed, "num_turns": self.messages}
        result |= {"subtype": subtype, **more}
        # The real CLI, too, names the type of this line in its middle.
        result |= {"type": "result", "duration_ms": elapsed, "uuid": new_uuid(), **self.message.asked}
        result |= {"queued_turn_count": 0, "result_index": session.results}
        model = {"inputTokens": self.read, "outputTokens": self.sent, "costUSD": spent / 10**6}
        yield line(**result, model_usage_since_last_result={self.model: model} if spent else {})
        session.results += 1
        yield session.lifecycle(self.message.uuid, "cancelled" if session.failed else "completed")

    def spent(self) -> int:
        """Microdollars so far, at made-up prices."""
        return 3 * self.read + 15 * self.sent

    def entry(self, kind: str, message: Json, uuid: str | None = None) -> Json:
        """A new transcript entry; `save` and `mirror` pass it on."""
        session = self.session
        entry: Json = {"parentUuid": session.leaf, "isSidechain": False, "type": kind, "message": message}
        entry |= {"uuid": uuid or new_uuid(), "timestamp": timestamp(), "userType": "external"}
        entry |= {"entrypoint": "sdk-cli", "cwd": session.cwd, "sessionId": session.id, "version": VERSION}
        session.leaf = entry["uuid"]
        self.unsaved.append(entry)
        self.unmirrored.append(entry)
        return entry

    def save(self) -> list[Json]:
        entries, self.unsaved = self.unsaved, []
        return entries

    def mirror(self) -> bytes:
        entries, self.unmirrored = self.unmirrored, []
        if not entries or not self.session.mirrors:
            return b""
        return line(type="transcript_mirror", filePath=self.session.path, entries=entries)

    def event(self, event: Json, timing: Json | None = None, **more: object) -> bytes:
        ids = {"session_id": self.session.id, "parent_tool_use_id": None, "uuid": new_uuid()}
        return line(
            type="stream_event", event=event, **ids, **(timing or {}), api_message_id=self.api_id, **more
        )

    def requesting(self) -> bytes:
        ids = {"session_id": self.session.id, "uuid": new_uuid()}
        return line(type="system", subtype="status", status="requesting", **ids, **self.message.uuids)

    def user(self, content: list[Json]) -> bytes:
        message = {"role": "user", "content": content}
        return self.repeat(self.entry("user", message), message)

    def assistant(self, block: Json, stop_reason: str | None, **more: object) -> bytes:
        """One block of the answer. Its line knows no stop reason yet, its entry does."""
        message = self.body([block])
        entry = self.entry("assistant", message | {"stop_reason": stop_reason})
        if stop_reason is None:
            entry["isAbortedMidStream"] = True
        return self.repeat(entry, message, **more, **self.message.asked)

    def repeat(self, entry: Json, message: Json, **more: object) -> bytes:
        """A transcript entry as stdout shows it."""
        ids = {"parent_tool_use_id": None, "session_id": self.session.id, "uuid": entry["uuid"]}
        return line(type=entry["type"], message=message, **ids, timestamp=entry["timestamp"], **more)

    def body(self, content: list[Json]) -> Json:
        about = {"id": self.api_id, "type": "message", "role": "assistant", "model": self.model}
        end = {"stop_reason": None, "stop_sequence": None, "usage": usage(self.read, self.sent)}
        return {**about, "content": content, **end}

    def elapsed(self) -> int:
        return int((time.monotonic() - self.begun) * 1000)

    def block(self) -> Json:
        return {"type": "text", "text": "".join(self.said)}
