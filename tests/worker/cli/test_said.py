from __future__ import annotations

import json

from warmwire.worker.cli.said import unstreamed


def test_an_unstreamed_message_has_the_events_of_a_streamed_one() -> None:
    events = unstreamed("m1", 'He said "hi"\n')
    assert [json.loads(each.event)["type"] for each in events] == [each.type for each in events]
    assert [
        {"type": "message_start", "message": {"id": "m1", "type": "message", "role": "assistant"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": 'He said "hi"\n'},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {}},
        {"type": "message_stop"},
    ] == [json.loads(each.event) for each in events]
