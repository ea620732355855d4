"""How a worker's CLIs are started: what is the same for all of its processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from warmwire.worker.cli.dialect import Abilities, Dialect
from warmwire.worker.cli.launch import Launch, Spawning, traced
from warmwire.worker.machine.sandbox import Sandbox
from warmwire.worker.profiles import Profile, Profiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """``can``: what this version of the CLI can be told late. ``enclosed``: where the profile does not say.

    ``traces``: the address of the collector that CLIs send spans to, if they do.
    """

    command: tuple[str, ...]
    can: Abilities
    dialect: Callable[[], Dialect]
    profiles: Profiles = field(default_factory=Profiles)
    sandbox: Sandbox | None = None
    enclosed: bool = False
    traces: str | None = None

    def plan(self, dialect: Dialect, spawn: Spawning, traceparent: str | None = None) -> Launch:
        """The start of a process, in the sandbox if its profile or the worker says so.

        What the CLI does is part of the trace where somebody wants to know.
        """
        plan = dialect.launch(self.command, spawn)
        if self.traces is not None and traceparent is not None:
            plan = traced(plan, self.traces, traceparent)
        return self._in_sandbox(plan, spawn.profile)

    def _in_sandbox(self, plan: Launch, profile: Profile) -> Launch:
        wanted = self.enclosed if profile.sandbox is None else profile.sandbox == "bwrap"
        if not wanted:
            return plan
        if self.sandbox is None:
            raise AssertionError("a sandbox is tried out when the worker starts")
        return self.sandbox.enclosed(plan, network=profile.network, kept=profile.keep_in, hide=profile.hide)
