from warmwire.broker.wire.events import TurnCompleted, TurnFailed
from warmwire.broker.wire.names import SessionKey
from warmwire.worker.sessions.recent import SLOWEST, WITHIN, Recent

KEY = SessionKey("default", "s1")


def completed(ttft_ms: int | None) -> TurnCompleted:
    return TurnCompleted(turn=f"t{ttft_ms}", attempt=1, duration_ms=1000, ttft_ms=ttft_ms)


def test_percentiles_are_of_the_turns_that_said_something() -> None:
    recent = Recent()
    assert not recent.told.ttft_ms
    for ms in (*range(1, 101), None):
        recent.ended(KEY, completed(ms), 0)
    assert recent.told.ttft_ms == (50, 95, 100)
    assert recent.told.ended == 101


def test_the_slowest_are_named_until_they_are_old() -> None:
    recent = Recent()
    for ms in range(10):
        recent.ended(KEY, completed(ms), 0)
    assert [slow.ttft_ms for slow in recent.told.slowest] == [9, 8, 7, 6, 5][:SLOWEST]
    recent.ended(KEY, completed(1), WITHIN)
    assert [slow.ttft_ms for slow in recent.told.slowest] == [1]


def test_what_turns_took_adds_up_and_without_a_failure_there_is_none() -> None:
    recent = Recent()
    for ms in (1, 2):
        recent.ended(KEY, completed(ms), 0)
    assert (2000, "") == (recent.busy_ms, recent.last_failure)


def test_failures_are_counted_among_the_ends() -> None:
    recent = Recent()
    for code in "xy":
        end = TurnFailed(turn="t", attempt=1, duration_ms=1, code=code, message="", retryable=False)
        recent.ended(KEY, end, 0)
    assert (recent.told.ended, recent.told.failed, recent.last_failure) == (2, 2, "y")
