"""Publish chat requests from a service, stream their answers: ``from warmwire.producer import Producer``."""

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
from .settings import EdgeClientSettings, ProducerSettings
from .turn import Turn
from .watching import Watch

__all__ = [
    "Answer",
    "EdgeClientSettings",
    "Event",
    "Growing",
    "KeyReused",
    "Lagging",
    "MessageTooLarge",
    "NotAnEdge",
    "NotAsked",
    "Producer",
    "ProducerSettings",
    "QuestionClosed",
    "Refused",
    "SessionBusy",
    "TextVoid",
    "Turn",
    "TurnFailed",
    "Watch",
]
