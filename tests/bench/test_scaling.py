from __future__ import annotations

import pytest
from bench.scaling import Case, burst, figures, played, pod
from bench.scaling_autoscale import Fixed, Limit, QueueLength, Scaler, Seen, averaged, manifest, value
from bench.scaling_model import Cluster
from bench.scaling_parts import Trace

SHORT = Trace("short", 600, lambda _: 0.3, 0.3, workers=2)


def run(trace: Trace = SHORT, seed: int = 1) -> dict[str, object]:
    return figures(Cluster(trace, Fixed(2), None, pod(), seed).run())


def test_the_same_seed_gives_the_same_figures() -> None:
    assert run() == run()
    assert run() != run(seed=2)


def test_a_pool_with_room_lets_nobody_wait_and_moves_nobody() -> None:
    found = run()
    assert (0, 0, 0) == (found["queued_percent"], found["moved"], found["again"])
    assert 0 < float(str(found["p50_ms"])) < 271  # the slowest that an adoption was measured at


def test_what_a_lost_worker_ran_begins_again_elsewhere_and_its_sessions_move() -> None:
    found = run(Trace("lost", 600, lambda _: 0.3, 0.3, workers=2, lost=((300, 1),)))
    assert int(str(found["again"])) > 0
    assert int(str(found["moved"])) >= int(str(found["again"]))


def test_messages_wait_where_there_are_too_few_workers() -> None:
    found = run(Trace("many", 600, lambda _: 2, 2, workers=1))
    assert float(str(found["longest_wait_s"])) > 3.1


def test_the_policy_by_slots_serves_a_burst_better_than_the_queue_and_a_fixed_number() -> None:
    assert burst(1800) == 10 * burst(0)
    slots, queue, fixed = (figures(played(Case("burst", each, 1))) for each in ("slots", "queue", "fixed"))
    assert slots["longest_wait_s"] < queue["longest_wait_s"] < fixed["longest_wait_s"]


# -- the manifest


def test_the_manifests_are_what_is_simulated() -> None:
    made = manifest()
    assert {"turns", "guard"} == set(made.queries)
    assert (2, 50) == (made.least, made.most)
    assert (20, 50, 1800) == (pod().turns, pod().sessions, pod().drain)


@pytest.mark.parametrize(
    ("workers", "running", "waiting", "turns", "guard"),
    [(5, 71, 0, 71, 5), (5, 70, 0, 70, 0), (5, 100, 30, 130, 5)],
)
def test_its_queries_are_reckoned_as_prometheus_does(
    workers: int, running: int, waiting: int, turns: int, guard: int
) -> None:
    seen = Seen(waiting, running, 20 * workers - running, workers)
    queries = manifest().queries
    assert (turns, guard) == (value(queries["turns"][0], seen), value(queries["guard"][0], seen))


def test_a_query_that_is_not_understood_is_not_guessed_at() -> None:
    with pytest.raises(NameError):
        value("max(warmwire_queue_age_seconds)", Seen(0, 0, 0, 0))


# -- the autoscaler


def test_a_metric_near_its_target_changes_nothing() -> None:
    assert 5 == averaged(87, 16, 5)
    assert 6 == averaged(89, 16, 5)
    assert 0 == QueueLength(10).wanted(Seen(0, 70, 0, 4), 4)


def scaler() -> Scaler:
    return manifest().scaler()


def test_up_it_goes_at_once_and_by_no_more_than_allowed() -> None:
    one = scaler()
    assert 8 == one.replicas(0, 4, 30)
    assert 8 == one.replicas(15, 8, 30)  # the step of 30 s is used up
    assert 16 == one.replicas(31, 8, 30)


def test_down_it_goes_after_ten_minutes_one_in_two() -> None:
    one = scaler()
    assert [8, 8, 8] == [one.replicas(now, 8, 2) for now in (0, 300, 599)]
    assert 7 == one.replicas(601, 8, 2)
    assert 7 == one.replicas(700, 7, 2)
    assert 6 == one.replicas(722, 7, 2)


def test_it_stays_within_its_bounds() -> None:
    free = Limit(0, (("Pods", 100, 1),))
    assert 50 == Scaler(2, 50, free, free).replicas(0, 2, 500)
    assert 2 == Scaler(2, 50, free, free).replicas(0, 2, 0)
