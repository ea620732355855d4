"""Interrupts at every moment of a turn, and messages that come while one runs: over HTTP, real workers."""

from __future__ import annotations

import asyncio

import pytest

from tests.system.product import Product, ended, only, text_of


@pytest.fixture(autouse=True)
def slow_if_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulators that fall silent at a word, until they are interrupted."""
    monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", "hang:3")
    monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT_ON", "long")
    monkeypatch.setenv("WARMWIRE_EMULATOR_RATE", "500")


async def test_an_interrupt_before_any_worker_is_there_is_honoured_before_the_start(product: Product) -> None:
    stream = await product.chat("a long one")
    assert 202 == (await product.interrupt())[0]
    await product.work()
    events = await ended(stream)
    assert ["turn_queued", "turn_interrupted"] == [type_ for type_, _, _ in events]
    assert "a long one" not in text_of(await product.ask("recall"))


async def test_an_interrupt_while_its_process_starts_is_honoured(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMWIRE_EMULATOR_STARTUP_MS", "300")
    await product.work()
    stream = await product.chat("a long one")
    assert 202 == (await product.interrupt())[0]
    assert "turn_interrupted" == (await ended(stream))[-1][0]


async def test_an_interrupt_in_mid_answer_keeps_the_text_and_a_second_changes_nothing(
    product: Product,
) -> None:
    await product.work()
    stream = await product.chat("a long one")
    for _ in range(3):
        await stream.until("content_block_delta")
    turn = (await product.interrupt())[1]
    assert {turn, None} >= {(await product.interrupt())[1]}
    events = await ended(stream)
    assert ("turn_interrupted", turn) == (events[-1][0], events[-1][1]["turn"])
    listed = await (await product.wire.send("GET", "/v1/sessions/s1/turns")).json()
    assert ["Hello! You wrote: "] == [each["text"] for each in listed["turns"]]


async def test_an_interrupt_during_a_tool_ends_the_turn(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", "ask")  # a tool that takes as long as people do
    await product.work()
    stream = await product.chat("a long one")
    await stream.until("tool_started")
    await stream.until("permission_requested")
    await product.interrupt()
    assert "turn_interrupted" == (await ended(stream))[-1][0]
    assert "turn_completed" == (await product.ask("Hello"))[-1][0]


async def test_an_interrupt_after_the_end_meets_nothing_and_not_the_next_turn(product: Product) -> None:
    await product.work()
    turn = only("turn_completed", await product.ask("Hello"))["turn"]
    assert [(200, None), (200, None)] == [await product.interrupt(), await product.interrupt(turn=turn)]
    stream = await product.chat("a long one")
    await stream.until("content_block_delta")
    assert (200, None) == await product.interrupt(turn=turn)
    assert 202 == (await product.interrupt())[0]
    assert "turn_interrupted" == (await ended(stream))[-1][0]


async def test_a_waiting_turn_is_interrupted_in_its_place(product: Product) -> None:
    await product.work()
    first = await product.chat("a long one")
    await first.until("content_block_delta")
    second = await product.chat("Hello")
    waiting = (await second.event())[1]["turn"]
    assert (202, waiting) == await product.interrupt(turn=waiting)
    await product.interrupt()
    assert "turn_interrupted" == (await ended(first))[-1][0]
    assert ["turn_interrupted"] == [type_ for type_, _, _ in await ended(second)]


async def test_a_second_message_waits_for_its_turn(product: Product) -> None:
    await product.work()
    first, second = await product.chat("one"), await product.chat("recall", double_texting="enqueue")
    events = await asyncio.gather(ended(first), ended(second))
    assert ["turn_completed", "turn_completed"] == [each[-1][0] for each in events]
    assert "one" == text_of(events[1])


async def test_a_second_message_may_interrupt_the_first(product: Product) -> None:
    await product.work()
    first = await product.chat("a long one")
    await first.until("content_block_delta")
    events = await product.ask("recall", double_texting="interrupt")
    assert "turn_interrupted" == (await ended(first))[-1][0]
    assert ("turn_completed", "a long one") == (events[-1][0], text_of(events))


async def test_a_second_message_may_be_refused_while_the_first_runs(product: Product) -> None:
    await product.work()
    first = await product.chat("a long one")
    await first.until("content_block_delta")
    body = {"session_id": "s1", "message": "Hello", "double_texting": "reject"}
    refused = await product.wire.post(body)
    assert (409, "urn:warmwire:problem:session_busy") == (refused.status, (await refused.problem())["type"])
    await product.interrupt()
    await ended(first)
    assert "turn_completed" == (await product.ask("Hello", double_texting="reject"))[-1][0]
