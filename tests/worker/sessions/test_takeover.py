"""The moments of a takeover, one by one, in the world of the simulation."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Literal

from warmwire.broker.wire.messages import Finished, Started, TurnOptions, UserMessage
from warmwire.worker.sessions import transcript

from tests.worker.simulation.viewer import Viewer
from tests.worker.simulation.worker import Host, Worker
from tests.worker.simulation.world import World


class Scene:
    """Two workers and a viewer of session s, to whom t1 has been submitted; it goes where a test lets it."""

    def __init__(self, text: str = "plain", loss: Literal["retry", "fail"] = "retry") -> None:
        self.world = World()
        self.server = self.world.server
        self.viewer = Viewer(self.world, "s")
        self.first = Worker(self.world)
        self.submit("t1", text, loss)
        self.until(lambda: self.first.hosts)
        self.second = Worker(self.world)

    def submit(self, turn: str, text: str = "plain", loss: Literal["retry", "fail"] = "retry") -> None:
        self.viewer.expect(turn)
        options = TurnOptions(on_worker_loss=loss)
        self.server.submit("s", UserMessage(turn=turn, content=text, options=options, sent_ms=0))

    def until(self, condition: Callable[[], object], within: float = 30) -> float:
        """Let things happen, one by one, until so; returns how long it took."""
        begun = self.world.now
        while not condition():
            enabled = self.world.enabled()
            if enabled:
                enabled[0]()
            else:
                assert self.world.now - begun < within
                self.world.advance()
        return self.world.now - begun

    def ended(self, turn: str = "t1") -> float:
        return self.until(lambda: turn in self.viewer.seen.endings and not self.server.queue)

    def host(self, worker: Worker) -> Host:
        return worker.hosts["s"]

    def running(self, worker: Worker) -> bool:
        """Whether its CLI has been given the message and has begun to answer."""
        host = worker.hosts.get("s")
        return bool(host and host.session.turn and host.session.turn.first_delta is not None)

    @property
    def ending(self) -> str:
        return self.viewer.seen.endings["t1"].type

    @property
    def told(self) -> list[str]:
        """The user messages in the stored conversation."""
        stored, _ = self.server.transcript("s")
        entries = [json.loads(line) for line in transcript.conversation(stored).splitlines()]
        return [entry["message"]["content"] for entry in entries if entry["type"] == "user"]


def taken_over() -> Scene:
    """The first worker was stopped in the middle of the turn; the second is in the middle of it by now."""
    scene = Scene()
    scene.until(lambda: scene.running(scene.first))
    scene.first.paused = True
    scene.until(lambda: scene.running(scene.second))
    return scene


def test_the_turn_of_a_killed_worker_goes_on_within_four_and_a_half_seconds() -> None:
    scene = Scene()
    scene.until(lambda: scene.running(scene.first))
    scene.first.die()
    assert scene.until(lambda: scene.running(scene.second)) <= 4.5
    scene.ended()
    assert "turn_completed" == scene.ending
    assert ["plain"] == scene.told


def test_a_turn_that_must_not_be_repeated_fails_when_its_worker_is_lost() -> None:
    scene = Scene(loss="fail")
    scene.until(lambda: scene.running(scene.first))
    scene.first.die()
    scene.ended()
    assert b'"code":"worker_lost"' in scene.viewer.seen.endings["t1"].event
    assert ["plain"] == scene.world.given


def test_an_owner_who_wakes_up_too_late_appends_nothing_and_shows_nothing() -> None:
    scene = taken_over()
    refused, stale = scene.server.refused, scene.host(scene.first)
    scene.second.paused, scene.first.paused = True, False
    scene.until(lambda: stale.closed)
    assert scene.server.refused > refused
    assert [] == scene.told
    scene.second.paused = False
    scene.ended()
    assert ["plain"] == scene.told
    assert scene.host(scene.second).session.epoch == scene.viewer.seen.endings["t1"].epoch


def test_an_owner_who_stopped_unnoticed_goes_on_where_it_was() -> None:
    scene = Scene()
    scene.second.die()
    scene.until(lambda: scene.running(scene.first))
    epoch = scene.host(scene.first).session.epoch
    scene.first.paused = True
    for _ in range(40):
        scene.world.advance()
    scene.first.paused = False
    scene.ended()
    assert (epoch, 1) == (scene.viewer.seen.endings["t1"].epoch, scene.viewer.seen.endings["t1"].attempt)
    assert ["plain"] == scene.world.given
    assert scene.viewer.seen.whole


def test_an_answer_that_is_stored_but_not_recorded_is_not_made_again() -> None:
    scene = Scene()
    scene.until(lambda: scene.told)
    assert isinstance(scene.server.turns["s", "t1"], Started)
    scene.first.die()
    scene.ended()
    assert "turn_completed" == scene.ending
    assert ["plain"] == scene.world.given == scene.told
    assert "told" == scene.viewer.seen.text("t1")


def test_an_end_that_is_recorded_is_told_as_it_was() -> None:
    scene = Scene()
    scene.until(lambda: isinstance(scene.server.turns.get(("s", "t1")), Finished))
    record = scene.server.turns["s", "t1"]
    scene.first.die()
    scene.ended()
    assert isinstance(record, Finished)
    assert record.epoch == scene.viewer.seen.endings["t1"].epoch
    assert ["plain"] == scene.world.given


def test_the_end_is_learnt_though_it_was_lost_and_nobody_takes_over() -> None:
    """Nothing waits in the queue, so nobody claims the session of the dead worker."""
    scene = Scene()
    scene.until(lambda: scene.running(scene.first))
    scene.viewer.lossy = 1000
    scene.until(lambda: not scene.server.queue)
    scene.first.die()
    scene.ended()
    assert "turn_completed" == scene.ending


def test_the_next_owner_knows_the_conversation() -> None:
    scene = Scene("first")
    scene.ended()
    scene.first.die()
    scene.submit("t2", "second")
    scene.ended("t2")
    assert "told first" == scene.viewer.seen.text("t2")
    assert ["first", "second"] == scene.told


def test_a_drained_worker_ends_its_turn_and_hands_the_session_over() -> None:
    scene = Scene("first")
    scene.until(lambda: scene.running(scene.first))
    scene.submit("t2", "second")
    scene.world.begin(scene.first.drain(), scene.first)
    scene.ended("t2")
    assert ("turn_completed", 1) == (scene.ending, scene.viewer.seen.endings["t1"].attempt)
    scene.until(lambda: not scene.first.alive)
    assert "told first" == scene.viewer.seen.text("t2")
    assert ["first", "second"] == scene.world.given


def test_a_turn_that_outlasts_the_drain_is_begun_again_elsewhere() -> None:
    scene = Scene("hang")
    scene.until(lambda: scene.running(scene.first))
    scene.world.begin(scene.first.drain(), scene.first)
    assert scene.until(lambda: scene.running(scene.second)) < 6
    assert ["hang", "hang"] == scene.world.given


def test_an_interrupted_turn_is_not_begun_again_elsewhere() -> None:
    scene = Scene("hang")
    scene.until(lambda: scene.running(scene.first))
    scene.world.begin(scene.viewer.interrupt("t1"), scene.viewer)
    scene.until(lambda: ("s", "t1") in scene.server.interrupts)
    scene.first.die()
    scene.ended()
    assert "turn_interrupted" == scene.ending
    assert ["hang"] == scene.world.given
