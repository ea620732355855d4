"""The reference pages that come from code: `python docs/generate.py` writes, `--check` only compares."""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from warmwire.broker import telemetry
from warmwire.broker.wire import events, messages
from warmwire.broker.wire.names import Subjects
from warmwire.compose.cli import COMMANDS, Role
from warmwire.compose.nats import roles as nats_roles
from warmwire.compose.options import Setting, settings_of
from warmwire.edge.documents import asyncapi

REFERENCE = Path(__file__).parent / "reference"

SETTINGS = """\
# Settings

<!-- Made from the settings classes by `make format`; edits here are lost. -->

Each setting is a flag of its command and a `WARMWIRE_*` variable; the flag wins, an empty variable counts as
absent. What `warmwire up` does not know itself reaches its workers and edges through the environment, so
`WARMWIRE_MAX_TURNS=50 warmwire up` works. The standard `OTEL_*` variables are read by every role.
"""


PERMISSIONS = """\
# What each role may do at NATS

<!-- Made from `compose/nats/roles.py` by `make format`; edits here are lost. -->

The rights of the users that `warmwire nats-config` makes, for the prefix `ww`; of a tenant with an account of
its own the first `*` of a session's subjects is its name.
[What they may not do](../nats.md#what-each-role-may-do-and-what-it-may-not).
"""


def settings_page() -> str:
    roles = {name: entry for name, entry in COMMANDS.items() if isinstance(entry, Role)}
    return SETTINGS + "".join(_section(name, role) for name, role in roles.items())


def _section(name: str, role: Role) -> str:
    rows = [_row(setting) for setting in settings_of(role.settings_class())]
    head = ["| flag | variable | default | |", "|---|---|---|---|"]
    return f"\n## `warmwire {name}`\n\n" + "\n".join([*head, *rows]) + "\n"


def _row(setting: Setting) -> str:
    default = f"`{setting.default}`" if setting.default else ""
    cells = [f"`{setting.flag}`", f"`{setting.variable}`", default, setting.help]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


WEBSOCKET = """\
# Frames of `WS /v1/chat/ws`

<!-- Made from the models of the frames by `make format`; edits here are lost. -->

JSON objects in text frames, both ways; [http.md](http.md#ws-v1chatws) says how they play together, and what
close codes mean. An edge serves the same as an AsyncAPI document: `GET /asyncapi.json`. A later version may
send fields that are not here; in what a client sends unknown fields are refused.
"""


def websocket_page() -> str:
    sections = {"From the client": asyncapi.REQUESTS, "To the client": asyncapi.REPLIES}
    return WEBSOCKET + "".join(
        f"\n## {title}\n" + "".join(_frame(name, model) for name, model in models.items())
        for title, models in sections.items()
    )


def _frame(name: str, model: type[BaseModel]) -> str:
    schema = model.model_json_schema()
    what = " ".join((model.__doc__ or "").split()).replace("``", "`")
    fields = {field: each for field, each in schema["properties"].items() if field != "type"}
    rows = [_field(field, each, field in schema.get("required", ())) for field, each in fields.items()]
    head = ["| field | | type |", "|---|---|---|"] if rows else []
    example = json.dumps(asyncapi.EXAMPLES[name], ensure_ascii=False)
    return "\n".join([f"\n### `{name}`\n", what, "", *head, *rows, "", "```json", example, "```", ""])


def _field(name: str, schema: dict[str, Any], required: bool) -> str:
    cells = [f"`{name}`", "required" if required else "", _type(schema)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema in words; what is absent is not said to be null."""
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"] if each.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    words = f"{schema['type']} of {_type(schema['items'])}s" if "items" in schema else str(schema["type"])
    limits = [text.format(schema[key]) for key, text in LIMITS.items() if key in schema]
    return ", ".join([words, *limits])


LIMITS = {
    "minimum": "from {}",
    "maximum": "to {}",
    "minLength": "not empty",
    "maxLength": "up to {} characters",
    "pattern": "`{}`",
}
"""What is said of a schema beside its type."""

METRICS = """\
# Metrics

<!-- Made from `broker/telemetry.py` by `make format`; edits here are lost. -->

OpenTelemetry instruments, meter `warmwire`, shown in Prometheus's text format: by each edge at `/metrics`, by
workers and edges on their `--metrics-port`. [What they are for](../observability.md). No label holds a
session, a turn or a user.

| name | kind | labels | what |
|---|---|---|---|
"""


def metrics_page() -> str:
    return METRICS + "".join(_metric(each) for each in telemetry.INSTRUMENTS.values())


def _metric(instrument: telemetry.Instrument) -> str:
    labels = "; ".join(f"`{label}`: {_values(values)}" for label, values in instrument.labels.items())
    return f"| `{instrument.name}` | {instrument.kind} | {labels} | {instrument.what} |\n"


def _values(values: tuple[str, ...] | str) -> str:
    return values if isinstance(values, str) else ", ".join(f"`{value}`" for value in values)


WIRE_MARK = "<!-- From here on made from the models by `make format`; edits below are lost. -->\n"
WIRE: dict[str, tuple[tuple[str, type[BaseModel]], ...]] = {
    "User messages: `ww.req.<tenant>.<session>`": (("", messages.UserMessage),),
    "Requests to an owner: `ww.ctl.<tenant>.<session>`": (
        ("asks", messages.Replay),
        ("is answered with", messages.OwnerView),
        ("asks", messages.Interrupt),
        ("is answered with", messages.InterruptReply),
        ("asks", messages.Permission),
        ("is answered with", messages.PermissionReply),
        ("asks; answered with `{}`", messages.Close),
    ),
    "Records: `WW_STATE`": (
        ("`ww.own.<tenant>.<session>`", messages.OwnerRecord),
        ("`ww.turn.<tenant>.<session>.<turn>`", messages.Started),
        ("`ww.turn.<tenant>.<session>.<turn>`", messages.Finished),
        ("`ww.bnd.<tenant>.<session>`", messages.BoundRecord),
        ("`ww.ses.<tenant>.<session>`", messages.SessionRecord),
        ("`ww.tkt.<digest>`", messages.TicketRecord),
    ),
    "Between workers": (
        ("`ww.fwd.<tenant>.<session>`", messages.Forward),
        ("is answered with", messages.ForwardReply),
        ("`ww.hb.<worker>`", messages.Heartbeat),
    ),
    "Events of ours: `event` in `ww.evt.<tenant>.<session>`": tuple(
        ("", made)
        for made in (
            *(
                events.TurnQueued,
                events.TurnStarted,
                events.TurnReset,
                events.ToolStarted,
                events.ToolFinished,
            ),
            *(events.PermissionRequested, events.PermissionResolved, events.TurnProgress),
            *(events.TurnCompleted, events.TurnInterrupted, events.TurnFailed, events.Snapshot, events.Gap),
        )
    ),
}
"""What travels, by where; each with a word about its place."""


def wire_page() -> str:
    """What people have written, to the mark, and the schemas."""
    written = (REFERENCE / "wire.md").read_text().partition(WIRE_MARK)[0]
    sections = (
        f"\n### {title}\n" + "".join(_schema(place, model) for place, model in models)
        for title, models in WIRE.items()
    )
    return written + WIRE_MARK + "".join(sections)


def _schema(place: str, model: type[BaseModel]) -> str:
    schema = model.model_json_schema()
    what = " ".join(str(schema.pop("description", "")).split()).replace("``", "`")
    text = json.dumps(schema, ensure_ascii=False)
    lines = [f"#### `{model.__name__}`", f"{place[:1].upper()}{place[1:]}.", what, f"```json\n{text}\n```"]
    return "\n" + "\n\n".join(line for line in lines if line != ".") + "\n"


def permissions_page() -> str:
    """A table for each role."""
    scope = nats_roles.Scope(Subjects("ww"))
    return PERMISSIONS + "".join(
        _rights(name, role.__doc__ or "", role(scope)) for name, role in nats_roles.ROLES.items()
    )


def _rights(name: str, what: str, rights: nats_roles.Rights) -> str:
    answers = "yes: to who has asked, once" if rights.answers else "no"
    rows = [
        *(f"| publishes | `{subject}` |" for subject in rights.publish),
        *(f"| listens to | `{subject}` |" for subject in rights.subscribe),
        f"| answers requests | {answers} |",
    ]
    return "\n".join([f"\n## {name}\n", what, "", "| | |", "|---|---|", *rows, ""])


PAGES = {
    "metrics.md": metrics_page,
    "permissions.md": permissions_page,
    "settings.md": settings_page,
    "websocket.md": websocket_page,
    "wire.md": wire_page,
}


def main() -> int:
    stale = [name for name, page in PAGES.items() if not _is_current(REFERENCE / name, page())]
    if "--check" in sys.argv[1:]:
        for name in stale:
            print(f"docs/reference/{name} is not what the code says: run `make format`", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (REFERENCE / name).write_text(PAGES[name]())
    return 0


def _is_current(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main())
