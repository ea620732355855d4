"""Profiles: what an operator lets the sessions of one kind do, and how their processes are started.

A profile fixes what a process is fixed to at its spawn, and says what a message may choose for its turn. A
session has one for life. Pure but for `load`, which reads the operator's file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.messages import (
    OPTION_LIMIT,
    THINKING_LIMIT,
    BoundRecord,
    PermissionMode,
    TurnOptions,
)
from warmwire.broker.wire.names import NAME
from warmwire.worker.budget import Limits
from warmwire.worker.errors import ErrorCode

DEFAULT = "default"
"""The profile of who names none."""
ANY = "*"
"""In ``models``: whatever a message names."""
PROFILES_LIMIT = 64
"""Profiles that one file may have."""
FILE_LIMIT = 1024 * 1024
"""Bytes of that file."""
SPARES_LIMIT = 64
LISTED = 20
"""Names that an error tells of those that are allowed."""
TOLD = (
    "tools",
    "allowed_tools",
    "disallowed_tools",
    "mcp_servers",
    "permission_modes",
    "max_thinking_tokens",
    "spares",
)
"""Fields that a CLI must be told of: a dialect that has no words for one cannot have it."""

Tool = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,99}$")]
Rule = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,99}(\([^\x00-\x1f\"]{1,400}\))?$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
Model = Annotated[str, Field(min_length=1, max_length=OPTION_LIMIT, pattern=r"^[^\x00-\x1f]*$")]
_TAKEN = ("HOME", "TMPDIR", "CLAUDE_CONFIG_DIR", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN")


class Profile(BaseModel):
    """One profile. docs/profiles.md says what each field does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[Model, ...] = (ANY,)
    default_model: Model | None = None
    system_prompt: str | None = None
    permission_modes: tuple[PermissionMode, ...] = Field(default=("default",), min_length=1)
    max_thinking_tokens: int = Field(default=32_000, ge=0, le=THINKING_LIMIT)
    tools: tuple[Tool, ...] = ()
    allowed_tools: tuple[Rule, ...] = ()
    disallowed_tools: tuple[Rule, ...] = ()
    mcp_servers: dict[Tool, dict[str, object]] = {}
    environment: tuple[Variable, ...] = ()
    workdir: Path | None = None
    keep_in: Path | None = None
    sandbox: Literal["none", "bwrap"] | None = None
    network: bool = True
    hide: tuple[Path, ...] = ()
    spares: int | None = Field(default=None, ge=0, le=SPARES_LIMIT)
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _fits_together(self) -> Profile:
        if self.default_model is not None and not self.allows(self.default_model):
            raise ValueError("default_model is not one of models")
        if self.keep_in is not None and self.spares:
            raise ValueError("spares must be 0 with keep_in: a spare knows no session")
        taken = [name for name in self.environment if name in _TAKEN or name.startswith("WARMWIRE_")]
        if taken:
            raise ValueError(f"environment may not have {taken[0]}: the worker sets it or keeps it")
        paths = {"workdir": (self.workdir,), "keep_in": (self.keep_in,), "hide": self.hide}
        for name, given in paths.items():
            if any(path is not None and not path.is_absolute() for path in given):
                raise ValueError(f"{name} must be an absolute path")
        return self

    def allows(self, model: str) -> bool:
        """Whether a turn may run on this model."""
        return ANY in self.models or model in self.models

    @property
    def permission_mode(self) -> PermissionMode:
        """Of turns that name none."""
        return self.permission_modes[0]


BUILT_IN = Profile()
"""A chat without tools, on any model."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How a turn's process is to be: the profile's name, and what was chosen within it."""

    profile: str = DEFAULT
    model: str | None = None
    system_prompt: str | None = None
    permission_mode: PermissionMode = "default"
    thinking_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A turn that is not run."""

    code: ErrorCode
    detail: str


@dataclass(frozen=True, slots=True)
class Profiles:
    """All that this worker has."""

    named: Mapping[str, Profile] = field(default_factory=lambda: {DEFAULT: BUILT_IN})

    def __getitem__(self, name: str) -> Profile:
        return self.named[name]

    def bind(self, options: TurnOptions, bound: BoundRecord | None) -> BoundRecord | Refused:
        """What the session is bound to; ``bound`` if it is already."""
        if bound is None:
            bound = BoundRecord(profile=options.profile or DEFAULT, system_prompt=options.system_prompt)
        if options.profile not in (None, bound.profile):
            return _fixed("profile", f"it is {bound.profile!r}")
        if options.system_prompt not in (None, bound.system_prompt):
            return _fixed("system_prompt", "it is another one")
        if bound.profile not in self.named:
            return Refused(
                ErrorCode.UNKNOWN_PROFILE, f"profile {bound.profile!r}; there are: {_list(self.named)}."
            )
        return bound

    def setup(self, options: TurnOptions, bound: BoundRecord) -> Setup | Refused:
        """How the turn is to be run, if its profile allows what it asks for."""
        profile = self.named[bound.profile]
        model, mode, thinking = options.model, options.permission_mode, options.thinking_tokens
        if model is not None and not profile.allows(model):
            return _forbidden(bound, "model", repr(model), _list(profile.models))
        if mode is not None and mode not in profile.permission_modes:
            return _forbidden(bound, "permission_mode", repr(mode), _list(profile.permission_modes))
        if thinking is not None and thinking > profile.max_thinking_tokens:
            most = f"up to {profile.max_thinking_tokens}"
            return _forbidden(bound, "thinking_tokens", str(thinking), most)
        prompt = bound.system_prompt if bound.system_prompt is not None else profile.system_prompt
        return Setup(
            bound.profile, model or _default_model(profile), prompt, mode or profile.permission_mode, thinking
        )

    def sandboxed(self, usual: str) -> bool:
        """Whether any of them runs in a sandbox; ``usual`` where it does not say."""
        return any((profile.sandbox or usual) == "bwrap" for profile in self.named.values())

    def spares(self, usual: int) -> dict[str, int]:
        """How many spares each is to have; ``usual`` where it does not say."""
        return {
            name: 0 if profile.keep_in else (usual if profile.spares is None else profile.spares)
            for name, profile in self.named.items()
        }


def _default_model(profile: Profile) -> str | None:
    """What the CLI takes by itself may be none that is allowed: then it is the first of those."""
    return profile.default_model or (None if ANY in profile.models else profile.models[0])


def _fixed(name: str, what: str) -> Refused:
    return Refused(ErrorCode.SESSION_FIXED, f"{name}: {what} since the session's first turn.")


def _forbidden(bound: BoundRecord, name: str, given: str, allowed: str) -> Refused:
    detail = f"{name} {given}; profile {bound.profile!r} allows {allowed}."
    return Refused(ErrorCode.NOT_ALLOWED, detail)


def _list(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return ", ".join(every[:LISTED]) + more


# --- the file ----------------------------------------------------------------------------------------------


def load(path: Path | None, dialect: str = "claude", told: Collection[str] = TOLD) -> Profiles:
    """The profiles of a TOML file, one table each; without a ``default`` the built-in one is there, too.

    ``told``: what a CLI of that dialect can be told of them.

    Raises:
        BadInput: naming the file, the profile and the field.
    """
    try:
        tables: Mapping[str, object] = tomllib.loads(_read(path)) if path is not None else {}
    except tomllib.TOMLDecodeError as error:
        raise BadInput("profiles", f"{path} is not TOML: {error}") from None
    if len(tables) > PROFILES_LIMIT:
        raise BadInput("profiles", f"{path} has {len(tables)} profiles, {PROFILES_LIMIT} are allowed")
    named = {DEFAULT: BUILT_IN}
    for name, table in tables.items():
        named[name] = _profile(path, name, table, dialect, told)
    if "max_thinking_tokens" not in told:  # nobody may ask for what cannot be told
        named = {name: each.model_copy(update={"max_thinking_tokens": 0}) for name, each in named.items()}
    return Profiles(named)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise BadInput("profiles", f"{path} cannot be read: {error.strerror}") from None
    if len(text) > FILE_LIMIT:
        raise BadInput("profiles", f"{path} is larger than {FILE_LIMIT} bytes")
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise BadInput("profiles", f"{path} is not UTF-8") from None


def _profile(path: Path | None, name: str, table: object, dialect: str, told: Collection[str]) -> Profile:
    where = f"{path}: {name}"
    if not NAME.match(name):
        raise BadInput("profiles", f"{where}: a name has 1 to 64 characters of A-Z a-z 0-9 _ -")
    if not isinstance(table, dict):
        raise BadInput("profiles", f"{where} must be a table: [{name}]")
    try:
        profile = Profile.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field_ = ".".join([where, *map(str, first["loc"])])
        problem = "is not known" if first["type"] == "extra_forbidden" else first["msg"]
        raise BadInput("profiles", f"{field_}: {problem}") from None
    for given in TOLD:
        if given in table and given not in told:
            raise BadInput("profiles", f"{where}.{given}: is not in the dialect {dialect!r}")
    _check_folders(where, profile)
    return profile


def _check_folders(where: str, profile: Profile) -> None:
    for name, folder in (("workdir", profile.workdir), ("keep_in", profile.keep_in)):
        if folder is not None and not folder.is_dir():
            raise BadInput("profiles", f"{where}.{name}: there is no folder {folder}")
