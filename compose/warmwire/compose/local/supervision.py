"""What a supervisor decides when a child process ends. No process and no clock in here: time is an argument.

The cases, in this order:
- we asked it to stop                      → nothing to do
- it refused its settings at the start     → everything ends, with its exit code: trying again changes nothing
- anything else                            → start it again, each time later, until it has lived long enough
"""

from dataclasses import dataclass

FIRST_DELAY = 0.1  # seconds
LONGEST_DELAY = 5.0  # seconds
LONG_ENOUGH = 10.0  # seconds alive after which a death is the first one again
REFUSED_SETTINGS = 2  # exit code of a role that cannot work with its settings; its own line says why


@dataclass(frozen=True)
class Restart:
    """Start the child again after `delay` seconds."""

    delay: float


@dataclass(frozen=True)
class End:
    """Stop everything; the child's exit code is ours."""

    code: int


@dataclass(frozen=True)
class History:
    """How often a child has died in a row."""

    deaths: int = 0

    def after(self, lived: float) -> "History":
        return History(1 if lived >= LONG_ENOUGH else self.deaths + 1)

    @property
    def delay(self) -> float:
        doublings = min(self.deaths - 1, 16)  # far past the longest; a float has no room for thousands
        return min(FIRST_DELAY * 2.0**doublings, LONGEST_DELAY)


def on_exit(history: History, code: int, *, stopping: bool, settled: bool) -> Restart | End | None:
    """What follows from a child's end; `history` counts it already, `settled` is after the first ready."""
    if stopping:
        return None
    if code == REFUSED_SETTINGS and not settled:
        return End(code)
    return Restart(history.delay)
