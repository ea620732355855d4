"""Lines of JSON, as the C half of `json` reads and writes them, and what every line needs."""

from __future__ import annotations

import _json
import posix
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, TypeAlias

    Json: TypeAlias = dict[str, Any]


def _reject(value: object) -> NoReturn:
    raise ValueError(value)


class _Dialect:
    """The options of the scanner, under the names of `json.JSONDecoder`."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int
    parse_constant = staticmethod(_reject)  # NaN and Infinity are not JSON


_scan: Callable[[str, int], tuple[object, int]] = _json.make_scanner(_Dialect())  # type: ignore[arg-type]
_chunks: Callable[[object, int], tuple[str, ...]] = _json.make_encoder(
    None, _reject, _json.encode_basestring, None, ":", ",", False, False, False
)


def decode(raw: bytes) -> object:
    """The value of one line; ValueError if it is not JSON."""
    text = raw.decode("utf-8", "replace").strip()
    try:
        value, end = _scan(text, 0)
    # SystemError: up to Python 3.11 the scanner cannot raise JSONDecodeError unless `json` has been imported.
    except (StopIteration, RecursionError, SystemError):
        raise ValueError(text) from None
    if end != len(text):
        raise ValueError(text)
    return value


def line(**fields: object) -> bytes:
    """One object as a line; the fields keep their order."""
    return ("".join(_chunks(fields, 0)) + "\n").encode("utf-8", "replace")


def encode_text(text: str) -> bytes:
    """A JSON string, quotes included."""
    return _json.encode_basestring(text).encode("utf-8", "replace")


def write(fd: int, data: bytes) -> None:
    done = posix.write(fd, data)
    while done < len(data):  # a signal came in between
        data = data[done:]
        done = posix.write(fd, data)


def refuse(message: str, code: int = 1) -> NoReturn:
    """End the process with one line on stderr."""
    write(2, f"{message}\n".encode("utf-8", "replace"))
    raise SystemExit(code)


def new_uuid() -> str:
    digits = posix.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def timestamp() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds // 10**6:03d}Z"


def usage(read: int, written: int) -> Json:
    cache = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"input_tokens": read, **cache, "output_tokens": written}
