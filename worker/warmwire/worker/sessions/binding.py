"""What a session is bound to from its first turn on, in its owner's hands. Pure."""

from __future__ import annotations

from warmwire.broker.wire.events import TurnEnd
from warmwire.broker.wire.messages import BoundRecord, TurnOptions
from warmwire.worker.budget import Breach, Limits, Meter, Spent, used_up
from warmwire.worker.profiles import DEFAULT, Profiles, Refused, Setup


class Binding:
    """Of one session: its profile, its system prompt, and what it has used."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles
        self._bound: BoundRecord | None = None
        self._unknown: Refused | None = None  # why it is not known what the session is bound to

    def take_over(self, bound: BoundRecord | Refused | None, *, begun: bool) -> None:
        """What is stored, or why no turn may be run; ``begun`` if there is a conversation.

        Of a session that began with nothing of its own nothing was stored.
        """
        if isinstance(bound, Refused):
            self._unknown = bound
            return
        self._bound = BoundRecord(profile=DEFAULT) if bound is None and begun else bound

    def set_up(self, options: TurnOptions) -> tuple[Setup, Meter] | Refused | Breach:
        """How a turn is to be run, and its meter; with it the session is bound, if it was not before."""
        bound = self._unknown or self._profiles.bind(options, self._bound)
        if isinstance(bound, Refused):
            return bound
        setup = self._profiles.setup(options, bound)
        limits, spent = self._profiles[bound.profile].limits, Spent(bound.tokens, bound.usd)
        breach = used_up(limits, spent)
        if isinstance(setup, Refused):
            return setup
        if breach is not None:
            return breach
        self._bound = bound
        return setup, Meter(limits, spent)

    @property
    def record(self) -> BoundRecord | None:
        """What has to be stored: None where it follows from there being nothing."""
        return None if self._bound in (None, BoundRecord(profile=DEFAULT)) else self._bound

    def spend(self, meter: Meter, end: TurnEnd) -> BoundRecord | None:
        """A turn that was run has ended; what has to be stored of that, if anything."""
        if self._bound is None or not self._limits.counts_session:
            return None
        spent = meter.spent(end.usage)
        self._bound = self._bound.model_copy(update={"tokens": spent.tokens, "usd": spent.usd})
        return self._bound

    @property
    def _limits(self) -> Limits:
        return self._profiles[self._bound.profile].limits if self._bound is not None else Limits()
