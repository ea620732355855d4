"""Flags from settings classes: name, help, default and validation are written once, in the class.

A field `stop_timeout` becomes `--stop-timeout` and `WARMWIRE_STOP_TIMEOUT`; a `validation_alias` renames the
variable. click only collects the text; pydantic judges it, wherever it came from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic import AliasChoices, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from warmwire.compose.errors import UsageError

METAVARS: dict[object, str] = {int: "N", float: "N", Path: "PATH", str: "TEXT"}

S = TypeVar("S", bound=BaseSettings)


@dataclass(frozen=True)
class Setting:
    """One field of a settings class, as a user meets it."""

    name: str
    flag: str
    variable: str
    help: str
    default: str  # empty when there is none
    metavar: str
    is_switch: bool
    may_be_secret: bool

    def option(self) -> click.Option:
        flag = f"{self.flag}/--no-{self.flag[2:]}" if self.is_switch else self.flag
        default = f"; default: {self.default}" if self.default else ""
        help_ = f"{self.help}  [{self.variable}{default}]"
        metavar = None if self.is_switch else self.metavar
        return click.Option([self.name, flag], default=None, help=help_, metavar=metavar)


def settings_of(cls: type[BaseSettings]) -> list[Setting]:
    """The fields of a settings class in the order they are written."""
    prefix = cls.model_config.get("env_prefix", "")
    return [_setting(name, field, prefix) for name, field in cls.model_fields.items()]


def load(cls: type[S], given: Mapping[str, object]) -> S:
    """Settings from flags, then environment, then defaults; UsageError names the flag and the variable."""
    values = {_input_name(cls, name): value for name, value in given.items() if value is not None}
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise UsageError(_complaint(cls, error)) from error


def _setting(name: str, field: FieldInfo, prefix: str) -> Setting:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    type_ = _plain(field.annotation)
    default: object = extra.get("default", field.get_default(call_default_factory=False))
    return Setting(
        name=name,
        flag=str(extra.get("flag", "--" + name.replace("_", "-"))),
        variable=(_aliases(field) or [f"{prefix}{name}".upper()])[0],
        help=field.description or "",
        default="" if default is None else str(default),
        metavar=str(extra.get("metavar") or _choices(type_) or METAVARS.get(type_, "VALUE")),
        is_switch=type_ is bool,
        may_be_secret=bool(extra.get("may_be_secret")),
    )


def _plain(annotation: object) -> object:
    """`int` for `int | None`: what a user can write."""
    if get_origin(annotation) in (Union, UnionType):
        parts: tuple[object, ...] = get_args(annotation)
        return next(part for part in parts if part is not type(None))
    return annotation


def _choices(type_: object) -> str:
    return "|".join(map(str, get_args(type_))) if get_origin(type_) is Literal else ""


def _aliases(field: FieldInfo) -> list[str]:
    """Other names of a field, the variable first."""
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return [choice for choice in choices if isinstance(choice, str)]


def _input_name(cls: type[BaseSettings], name: str) -> str:
    """What the class wants a value to be called: pydantic takes a field with an alias by its aliases only."""
    return (_aliases(cls.model_fields[name]) or [name])[0]


def _complaint(cls: type[BaseSettings], error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    where = str(first["loc"][0]) if first["loc"] else ""  # of a variable that is no JSON, where it should be
    named = {s.variable: s for s in settings_of(cls)} | {s.name: s for s in settings_of(cls)}
    problem = first["msg"].removeprefix("Value error, ")
    if where not in named:
        return problem
    setting = named[where]
    where = f"{setting.flag} ({setting.variable}){_given(setting, first['input'])}"
    return f"{where}: {problem[0].lower()}{problem[1:]}"


def _given(setting: Setting, value: object) -> str:
    """What was given, unless there may be a secret in it, such as a password before an @."""
    return "" if setting.may_be_secret or "@" in str(value) else f" {value!r}"
