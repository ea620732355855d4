import pytest

from warmwire.compose.local.supervision import LONG_ENOUGH, LONGEST_DELAY, End, History, Restart, on_exit


def test_each_quick_death_waits_twice_as_long_up_to_the_longest() -> None:
    history, delays = History(), []
    for _ in range(8):
        history = history.after(lived=0.2)
        delays.append(history.delay)
    assert [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_DELAY, LONGEST_DELAY] == delays


def test_a_thousand_deaths_do_not_overflow() -> None:
    assert History(deaths=5000).delay == LONGEST_DELAY


def test_a_death_after_a_long_life_counts_as_the_first() -> None:
    assert History(deaths=1) == History(deaths=7).after(lived=LONG_ENOUGH)


@pytest.mark.parametrize(
    ("code", "stopping", "settled", "expected"),
    [
        (0, True, True, None),
        (-9, True, False, None),
        (2, False, False, End(2)),
        (2, False, True, Restart(0.1)),
        (1, False, False, Restart(0.1)),
        (0, False, True, Restart(0.1)),
        (-15, False, True, Restart(0.1)),
    ],
    ids=[
        "asked to stop: nothing",
        "killed by us: nothing",
        "settings refused at the start: the end",
        "settings refused later: again",
        "a crash at the start: again",
        "a clean end that nobody asked for: again",
        "a signal that was not ours: again",
    ],
)
def test_what_follows_from_an_end(
    code: int, *, stopping: bool, settled: bool, expected: Restart | End | None
) -> None:
    assert expected == on_exit(History(deaths=1), code, stopping=stopping, settled=settled)
