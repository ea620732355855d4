"""Publish chat requests from a service, stream their answers: ``from warmwire.producer import Producer``."""

from warmwire.broker.errors import BadInput, QueueFull, StoreFull, Unavailable, WarmwireError

from .answer import Answer, Event, Growing
from .client import Producer
from .errors import (
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
from .past import PastTurn, WaitingTurn
from .settings import EdgeClientSettings, ProducerSettings
from .turn import Turn
from .watch import Watch

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
