"""What `WARMWIRE_EMULATOR_*` in the environment asks for."""

from __future__ import annotations

from warmwire.worker.emulation.codec import refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

PREFIX = "WARMWIRE_EMULATOR_"
HOUR = 3600.0
BAD_VALUE = 2  # exit code

# HTTP status of the API: its own name for the error, and the CLI's.
API_ERRORS = {
    400: ("invalid_request_error", "unknown"),
    401: ("authentication_error", "authentication_failed"),
    403: ("permission_error", "unknown"),
    404: ("not_found_error", "unknown"),
    413: ("request_too_large", "unknown"),
    429: ("rate_limit_error", "rate_limit"),
    500: ("api_error", "unknown"),
    529: ("overloaded_error", "overloaded"),
}
UNAUTHORIZED = 401
PLAIN_FAULTS = ("exit-at-start", "bad-line", "child", "tool", "ask")
NUMBERED_FAULTS = ("crash", "hang", "deaf", "error", "retry", "long-line")
MAX_COUNT = 10**8  # deltas, or bytes of a long line
MAX_SCRIPT = 1 << 20  # bytes


class Settings:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.deltas = int(self._number("DELTAS", 0, 1, 10**6))  # 0: as many as the answer has words
        self.gap = 1 / self._number("RATE", 50, 0.001, 10**6)  # seconds from delta to delta
        self.startup = self._number("STARTUP_MS", 0, 0, HOUR * 1000) / 1000
        self.ttft = self._number("TTFT_MS", 20, 0, HOUR * 1000) / 1000
        self.stamp = self._number("STAMP", 0, 0, 1) == 1
        self.fault, self.count = self._fault()
        self._word = env.get(PREFIX + "FAULT_ON", "")
        self.tokens = env.get(PREFIX + "TOKENS", "").split()
        self.script = self._script()  # what every message is answered with; empty: nothing of the kind

    def refuses(self, token: str) -> bool:
        """Whether the API that is played does not take this credential."""
        return bool(self.tokens) and token not in self.tokens

    def fault_for(self, text: str) -> str:
        return self.fault if self._word in text else ""

    def _number(self, name: str, default: float, low: float, high: float) -> float:
        text = self._env.get(PREFIX + name)
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            self._refuse(name, f"a number from {low:g} to {high:g}")
        return value

    def _fault(self) -> tuple[str, int]:
        text = self._env.get(PREFIX + "FAULT", "")
        name, _, digits = text.partition(":")
        count = int(digits) if digits.isdecimal() and len(digits) <= len(str(MAX_COUNT)) else MAX_COUNT + 1
        if not text or text in PLAIN_FAULTS:
            return text, 1
        if name not in NUMBERED_FAULTS or count > MAX_COUNT:
            forms = [*PLAIN_FAULTS, *(fault + ":N" for fault in NUMBERED_FAULTS)]
            self._refuse("FAULT", f"one of {', '.join(forms)}")
        if name == "error" and count not in API_ERRORS:
            self._refuse("FAULT", f"error: and one of {', '.join(map(str, API_ERRORS))}")
        return name, count

    def _script(self) -> str:
        path = self._env.get(PREFIX + "SCRIPT", "")
        if not path:
            return ""
        try:
            with open(path, "rb") as script:  # noqa: PTH123 - pathlib would cost megabytes
                raw = script.read(MAX_SCRIPT + 1)
            text = raw.decode()
        except (OSError, ValueError):
            raw, text = b"", ""
        if not 0 < len(raw) <= MAX_SCRIPT:
            self._refuse("SCRIPT", f"a file of UTF-8 that has 1 to {MAX_SCRIPT} bytes")
        return text

    def _refuse(self, name: str, wanted: str) -> NoReturn:
        text = self._env[PREFIX + name]
        refuse(f"emulator: {PREFIX}{name} must be {wanted}, not {text!r}", BAD_VALUE)
