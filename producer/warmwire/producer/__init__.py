"""Publish chat requests from a service, stream their answers: ``from warmwire.producer import Producer``."""

from .answer import Answer, Event
from .client import Producer
from .errors import KeyReused, Lagging, MessageTooLarge, NotAsked, QuestionClosed, SessionBusy, TurnFailed
from .settings import ProducerSettings
from .turn import Turn

__all__ = [
    "Answer",
    "Event",
    "KeyReused",
    "Lagging",
    "MessageTooLarge",
    "NotAsked",
    "Producer",
    "ProducerSettings",
    "QuestionClosed",
    "SessionBusy",
    "Turn",
    "TurnFailed",
]
