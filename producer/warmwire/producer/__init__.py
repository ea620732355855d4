"""Publish chat requests from a service, stream their answers: ``from warmwire.producer import Producer``."""

from warmwire.broker.errors import BadInput, QueueFull, StoreFull, Unavailable, WarmwireError
from warmwire.producer.answer import Answer, Event, Growing
from warmwire.producer.client import Producer
from warmwire.producer.errors import (
    KeyReused,
    Lagging,
    MessageTooLarge,
    NotAnEdge,
    NotAsked,
    QuestionClosed,
    Refused,
    SessionBusy,
    TextVoid,
    TurnFailed,
)
from warmwire.producer.past import PastTurn, WaitingTurn
from warmwire.producer.settings import EdgeClientSettings, ProducerSettings
from warmwire.producer.turn import Turn, Watch

__all__ = [
    "Answer",
    "BadInput",
    "EdgeClientSettings",
    "Event",
    "Growing",
    "KeyReused",
    "Lagging",
    "MessageTooLarge",
    "NotAnEdge",
    "NotAsked",
    "PastTurn",
    "Producer",
    "ProducerSettings",
    "QuestionClosed",
    "QueueFull",
    "Refused",
    "SessionBusy",
    "StoreFull",
    "TextVoid",
    "Turn",
    "TurnFailed",
    "Unavailable",
    "WaitingTurn",
    "WarmwireError",
    "Watch",
]
