"""A small program in the plain `stream-json` dialect: what a user of that dialect might have.

It answers `recall` with what it has been told in its life, and before that by the file in WARMWIRE_HISTORY;
`tool` with two messages, the first for a tool; `error` with an error event; `token` with the length of the
one that it has; `die` by ending; `grow` by taking memory until it is killed; `holds NEEDLE GLOB…` with those
files that have the needle and that it can read. `long` speaks slowly: SIGINT ends the program, as Ctrl-C does
by default, with `--polite` only the message, with `--deaf` nothing.
"""

from __future__ import annotations

import glob
import json
import os
import signal
import sys
import time
from typing import Any

earlier: list[str] = []


def say(type_: str, **fields: Any) -> None:
    print(json.dumps({"type": type_, **fields}), flush=True)


def begin() -> None:
    usage = {"input_tokens": 3, "output_tokens": 1}
    message = {"id": f"msg_{len(earlier)}", "model": "plain", "role": "assistant", "usage": usage}
    say("message_start", message=message)
    say("content_block_start", index=0, content_block={"type": "text", "text": ""})


def speak(text: str) -> None:
    say("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


def end(reason: str | None) -> None:
    say("content_block_stop", index=0)
    if reason is not None:
        say("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": 5})
    say("message_stop")


def answer(text: str) -> None:
    if text == "die":
        sys.exit(3)
    if text == "error":
        say("error", error={"type": "overloaded_error", "message": "no room"})
        return
    begin()
    if text == "tool":
        speak("Let me look.")
        end("tool_use")
        begin()
    if text == "long":
        speak_slowly()
        return
    if text == "token":
        speak(str(len(os.environ.get("CLAUDE_CODE_OAUTH_TOKEN", ""))))
    elif text == "grow":
        speak(f"Got {len(taken(512))} MB.")
    elif text.startswith("holds "):
        _, needle, *patterns = text.split()
        paths = [path for pattern in patterns for path in glob.glob(pattern)]  # noqa: PTH207 - as small as can be
        speak("\n".join(path for path in paths if holds(path, needle)))
    else:
        speak("\n".join(earlier) if text == "recall" else f"You said: {text}")
    end("end_turn")


def taken(most: int) -> list[bytearray]:
    """That many MB, one after the other."""
    return [bytearray(os.urandom(1024)) * 1024 for _ in range(most)]


def holds(path: str, needle: str) -> bool:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as small as can be
            return needle.encode() in file.read()
    except OSError:
        return False


def speak_slowly() -> None:
    try:
        for _ in range(6000):
            speak("word ")
            time.sleep(0.01)
    except InterruptedError:
        end(None)


def interrupted(*_: object) -> None:
    raise InterruptedError


def remembered() -> list[str]:
    path = os.environ.get("WARMWIRE_HISTORY")
    if path is None:
        return []
    with open(path) as history:  # noqa: PTH123 - as small as can be
        said = [json.loads(line)["message"] for line in history]
    return [message["content"] for message in said if message["role"] == "user"]


def main() -> None:
    assert {"--input-format=stream-json", "--output-format=stream-json"} <= set(sys.argv)
    if "--deaf" in sys.argv:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    elif "--polite" in sys.argv:
        signal.signal(signal.SIGINT, interrupted)
    earlier.extend(remembered())
    for line in sys.stdin:
        message = json.loads(line)
        assert message["type"] == "user_message"
        answer(message["content"])
        earlier.append(message["content"])


if __name__ == "__main__":
    main()
