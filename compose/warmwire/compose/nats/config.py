"""`warmwire nats-config`: what a NATS server for more than one machine needs, in one folder.

Secrets that are there are kept, everything else is written anew: so it is run again to add a tenant or a
server, to renew the certificate, and, after a secret's file was removed, to have a new one.
docs/nats.md explains the values.
"""

import datetime as dt
import json
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import bcrypt
import click
import nkeys

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.names import Subjects, check_name
from warmwire.compose.errors import DataFolderError, UsageError
from warmwire.compose.nats import tls
from warmwire.compose.nats.roles import ROLES, Rights, Scope
from warmwire.compose.nats.server import MAX_PAYLOAD

HELP = """Write the configuration of a NATS server with a user for each role, in the folder --out.

\b
  nats.conf       for nats-server; the passwords in it are hashed
  users.json      {role: {user, password}}; with --auth nkey {role: {user, seed_file}}
  users/          each role's secret in a file of its own, to be given to that role alone
  tls/            ca.pem for the roles; server.pem and server.key for the servers

\b
  warmwire nats-config --out nats
  nats-server --config nats/nats.conf
  WARMWIRE_NATS_USER=edge WARMWIRE_NATS_PASSWORD_FILE=nats/users/edge.password \\
    WARMWIRE_NATS_TLS_CA=nats/tls/ca.pem warmwire edge --nats nats://localhost:4222

Secrets that are there are kept; remove one's file and run it again to have a new one.
"""

PORT, ROUTES = 4222, 6222
ROUNDS = 8
"""Of bcrypt. A password of 256 random bits is not found however cheap a try is; but each connection costs the
server one, and after a restart all of them come at once."""
SYSTEM, ROUTE = "system", "route"
OURS = "WARMWIRE"
PUBLIC = 0o644
"""Mode of a file with a certificate: there is no secret in it."""
MAX_CONNECTIONS = 10_000
MAX_SUBSCRIPTIONS = 100_000
_HOST_NAME = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9a-fA-F:]{2,39}")
_INTERVAL = re.compile(r"always|[1-9][0-9]{0,3}(ms|s|m)")

Auth = Literal["password", "nkey"]


@dataclass(frozen=True)
class Certificates:
    """Files, as the servers find them. ``authority``: what the certificate is signed with."""

    certificate: str
    key: str
    authority: str | None


@dataclass(frozen=True)
class Proof:
    """How a user is known: by a hashed password, or by a public NKEY."""

    user: str
    hashed: str | None = None

    @property
    def fields(self) -> dict[str, object]:
        """For the configuration."""
        return {"nkey": self.user} if self.hashed is None else {"user": self.user, "password": self.hashed}


@dataclass(frozen=True)
class Plan:
    """What the servers are to be. ``nodes``: their names, in a cluster; none where there is one server."""

    host: str
    port: int
    store: str
    store_gb: int
    sync_interval: str
    subjects: Subjects
    nodes: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    tls: Certificates | None = None


def users_of(tenants: Sequence[str]) -> dict[str, tuple[str, str | None]]:
    """Every user of ours with its role and, if its account is a tenant's own, that tenant."""
    ours: dict[str, tuple[str, str | None]] = {role: (role, None) for role in ROLES}
    return ours | {f"{role}-{tenant}": (role, tenant) for tenant in tenants for role in ROLES}


def configuration(plan: Plan, proofs: dict[str, Proof], route: tuple[str, str] | None) -> str:
    """The text of nats.conf. ``route``: the password of routes, and its hash; None without a cluster."""
    parts = [_server(plan), _jetstream(plan)]
    if plan.tls is not None:
        parts.append(_tls("tls", plan.tls, verify=False))
    if route is not None:
        parts.append(_cluster(plan, *route))
    return "\n".join([*parts, _accounts(plan, proofs)])


def _server(plan: Plan) -> str:
    name = "$NATS_NAME # each server's own, from its environment" if plan.nodes else "warmwire"
    return f"""\
# Written by `warmwire nats-config`: run that again rather than edit. What the values are for: docs/nats.md
server_name: {name}
host: {_quoted(plan.host)}
port: {plan.port}
max_payload: {MAX_PAYLOAD}
max_connections: {MAX_CONNECTIONS}
max_subscriptions: {MAX_SUBSCRIPTIONS}
max_pending: 64MB
write_deadline: "10s"
ping_interval: "20s"
ping_max: 3
lame_duck_grace_period: "5s"
lame_duck_duration: "30s"
"""


def _jetstream(plan: Plan) -> str:
    return f"""\
jetstream {{
  store_dir: {_quoted(plan.store)}
  max_memory_store: 64MB
  max_file_store: {plan.store_gb}GB
  sync_interval: {plan.sync_interval}
}}
"""


def _tls(name: str, tls: Certificates, *, verify: bool) -> str:
    lines = [f"cert_file: {_quoted(tls.certificate)}", f"key_file: {_quoted(tls.key)}", "timeout: 5"]
    if verify:
        lines += [f"ca_file: {_quoted(tls.authority or '')}", "verify: true"]
    return f"{name} {{\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


def _cluster(plan: Plan, password: str, hashed: str) -> str:
    routes = ", ".join(f'"nats-route://{ROUTE}:{password}@{node}:{ROUTES}"' for node in plan.nodes)
    inner = f"""\
name: warmwire
host: {_quoted(plan.host)}
port: {ROUTES}
no_advertise: true
authorization {{ user: {ROUTE}, password: {_quoted(hashed)}, timeout: 5 }}
routes: [{routes}]
"""
    if plan.tls is not None:
        inner += _tls("tls", plan.tls, verify=True)
    return "cluster {\n" + "".join(f"  {line}\n" for line in inner.splitlines()) + "}\n"


def _accounts(plan: Plan, proofs: dict[str, Proof]) -> str:
    accounts = {OURS: _account(plan, proofs, None)}
    accounts |= {f"TENANT_{tenant}": _account(plan, proofs, tenant) for tenant in plan.tenants}
    accounts["SYS"] = {"users": [proofs[SYSTEM].fields | _STANDARD]}
    return f"system_account: SYS\naccounts {json.dumps(accounts, indent=2)}\n"


_STANDARD: dict[str, object] = {"allowed_connection_types": ["STANDARD"]}


def _account(plan: Plan, proofs: dict[str, Proof], tenant: str | None) -> dict[str, object]:
    scope = Scope(plan.subjects, tenant)
    users = [
        proofs[name].fields | {"permissions": _permissions(ROLES[role](scope))} | _STANDARD
        for name, (role, of) in users_of(plan.tenants).items()
        if of == tenant
    ]
    return {"jetstream": {"max_streams": 8, "max_consumers": 64}, "users": users}


def _permissions(rights: Rights) -> dict[str, object]:
    allowed: dict[str, object] = {
        "publish": {"allow": rights.publish},
        "subscribe": {"allow": rights.subscribe},
    }
    # To who asked, and nowhere else: so no role may write into another's inbox unasked.
    return allowed | ({"allow_responses": {"max": 1, "expires": "30s"}} if rights.answers else {})


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# -- the folder


class Folder:
    """Where everything is written. Raises DataFolderError where it cannot be."""

    def __init__(self, path: Path, at: str | None) -> None:
        self.path = path
        self._at = at

    def seen(self, *parts: str) -> str:
        """Where a file is for the servers, which may see the folder elsewhere."""
        return os.path.join(self._at or str(self.path.absolute()), *parts)  # noqa: PTH118 - of another machine

    def write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """For the owner only, unless ``mode`` says else, from the first moment, and whole or not at all."""
        path = self.path / name
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
                file.write(data)
            draft.replace(path)
        except OSError as error:
            raise DataFolderError(f"{path} cannot be written: {error.strerror}") from error

    def kept(self, name: str, new: bytes, mode: int = 0o600) -> bytes:
        """What the file holds; ``new``, written to it, where there is none."""
        path = self.path / name
        try:
            found = path.read_bytes().strip()
        except FileNotFoundError:
            self.write(name, new + b"\n", mode)
            return new
        except OSError as error:
            raise DataFolderError(f"{path} cannot be read: {error.strerror}") from error
        if not found:
            raise DataFolderError(f"{path} is empty: remove it to have a new secret")
        return found


def _password(folder: Folder, user: str) -> str:
    return folder.kept(f"users/{user}.password", secrets.token_urlsafe(32).encode()).decode()


def _hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(ROUNDS)).decode()


def _public_key(folder: Folder, user: str) -> str:
    new = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
    try:
        pair: Any = nkeys.from_seed(bytearray(folder.kept(f"users/{user}.nk", new)))  # has no types
        return str(pair.public_key.decode())
    except (nkeys.NkeysError, ValueError):
        raise DataFolderError(f"{folder.path / 'users' / user}.nk holds no seed of an NKEY") from None


def proven(folder: Folder, auth: Auth, users: Sequence[str]) -> tuple[dict[str, Proof], dict[str, object]]:
    """How the server knows each user, and what users.json says of them."""
    proofs: dict[str, Proof] = {}
    told: dict[str, object] = {}
    for name in users:
        if auth == "nkey":
            proofs[name] = Proof(_public_key(folder, name))
            told[name] = {"user": proofs[name].user, "seed_file": folder.seen("users", f"{name}.nk")}
        else:
            password = _password(folder, name)
            proofs[name] = Proof(name, _hashed(password))
            told[name] = {"user": name, "password": password}
    return proofs, told


def certified(folder: Folder, names: Sequence[str]) -> Certificates:
    """The authority that is there, or a new one; and a new certificate of the servers."""
    now = dt.datetime.now(dt.UTC)
    made = tls.authority(now)
    key = folder.kept("tls/ca.key", made.key)
    certificate = folder.kept("tls/ca.pem", made.certificate, PUBLIC)
    try:
        server = tls.server(tls.Pair(certificate, key), names, now)
    except ValueError as error:
        raise DataFolderError(f"{folder.path / 'tls'} holds no certificate and key: {error}") from None
    folder.write("tls/server.pem", server.certificate, PUBLIC)
    folder.write("tls/server.key", server.key)
    return Certificates(
        *(folder.seen("tls", name) for name in ("server.pem", "server.key", "ca.pem")),
    )


# -- the command


@dataclass(frozen=True)
class Given:
    """The options, as they came."""

    out: Path
    auth: Auth
    no_tls: bool
    tls_cert: Path | None
    tls_key: Path | None
    tls_ca: Path | None
    names: tuple[str, ...]
    cluster: int | None
    nodes: str | None
    tenants: tuple[str, ...]
    host: str | None
    port: int
    at: str | None
    store: str | None
    store_gb: int
    sync_interval: str
    prefix: str

    def checked(self) -> "Given":
        """Itself. Raises UsageError, naming the option."""
        certificates = (self.tls_cert, self.tls_key)
        if None in certificates and certificates != (None, None):
            raise UsageError("--tls-cert and --tls-key go together")
        if self.tls_ca is not None and self.tls_cert is None:
            raise UsageError("--tls-ca: is for a --tls-cert of your own")
        if self.tls_cert is not None and self.no_tls:
            raise UsageError("--tls-cert: not with --no-tls")
        if self.tls_cert is not None and self.members and self.tls_ca is None:
            raise UsageError("--tls-ca: is needed in a cluster, whose servers check each other")
        if not _INTERVAL.fullmatch(self.sync_interval):
            raise UsageError(f"--sync-interval: {self.sync_interval!r} is neither `always` nor such as 10s")
        for option, names in (("--name", self.names), ("--nodes", self.members)):
            for name in names:
                if not _HOST_NAME.fullmatch(name):
                    raise UsageError(f"{option}: {name!r} is no host name")
        return self

    @property
    def members(self) -> tuple[str, ...]:
        """The servers of the cluster; none without one."""
        if self.nodes is not None:
            return tuple(dict.fromkeys(name.strip() for name in self.nodes.split(",")))
        return tuple(f"nats-{number}" for number in range(1, (self.cluster or 0) + 1))

    @property
    def reached(self) -> tuple[str, ...]:
        """What the certificate is for."""
        return tuple(dict.fromkeys(("localhost", "127.0.0.1", "::1", *self.members, *self.names)))

    def plan(self, folder: "Folder") -> Plan:
        """What follows of them; makes the certificates. Raises UsageError, DataFolderError."""
        try:
            subjects = Subjects(self.prefix)
            tenants = tuple(dict.fromkeys(check_name("tenant", name) for name in self.tenants))
        except BadInput as error:
            raise UsageError(f"--{error}") from error
        return Plan(
            self.host or ("127.0.0.1" if self.no_tls else "0.0.0.0"),  # noqa: S104 - encrypted, with users
            self.port,
            self.store or folder.seen("jetstream"),
            self.store_gb,
            self.sync_interval,
            subjects,
            self.members,
            tenants,
            None if self.no_tls else self._certificates(folder),
        )

    def _certificates(self, folder: "Folder") -> Certificates:
        if self.tls_cert is None:
            return certified(folder, self.reached)
        ca = None if self.tls_ca is None else str(self.tls_ca)
        return Certificates(str(self.tls_cert), str(self.tls_key), ca)


@click.command(name="nats-config", help=HELP)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="The folder to write."
)
@click.option(
    "--auth",
    type=click.Choice(["password", "nkey"]),
    default="password",
    show_default=True,
    help="How roles show who they are.",
)
@click.option(
    "--no-tls", is_flag=True, help="Without TLS; then it listens on loopback only, unless --host says else."
)
@click.option(
    "--tls-cert", type=click.Path(path_type=Path), help="A certificate (PEM) of your own for the servers."
)
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its key.")
@click.option("--tls-ca", type=click.Path(path_type=Path), help="The certificates that it is signed with.")
@click.option(
    "--name",
    "names",
    multiple=True,
    help="A name or address by which servers are reached, for the certificate; may be repeated.",
)
@click.option("--cluster", type=click.IntRange(2, 9), metavar="N", help="N servers, named nats-1 to nats-N.")
@click.option(
    "--nodes", metavar="NAMES", help="The servers' host names, with commas between, instead of --cluster."
)
@click.option(
    "--tenant", "tenants", multiple=True, help="A tenant that gets an account of its own; may be repeated."
)
@click.option("--host", help="Address to listen on.  [default: 0.0.0.0; with --no-tls 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(-1, 65535),
    default=PORT,
    show_default=True,
    help="Port to listen on; -1 takes a free one.",
)
@click.option(
    "--at", metavar="PATH", help="Where the servers will see the folder --out, if elsewhere (a container)."
)
@click.option(
    "--store",
    metavar="PATH",
    help="Where the servers keep what is stored.  [default: jetstream in that folder]",
)
@click.option(
    "--store-gb",
    type=click.IntRange(2, 100_000),
    default=20,
    show_default=True,
    help="GB that a server may store.",
)
@click.option(
    "--sync-interval",
    default="always",
    show_default=True,
    metavar="always|TIME",
    help="How often what is stored is brought to the disk, such as 10s.",
)
@click.option("--prefix", default="ww", show_default=True, help="As the roles' --prefix.")
def nats_config(**options: Any) -> None:
    """The command."""
    given = Given(**options).checked()
    folder = Folder(given.out, given.at)
    _write(folder, given.plan(folder), given.auth)


def _write(folder: Folder, plan: Plan, auth: Auth) -> None:
    proofs, told = proven(folder, auth, [*users_of(plan.tenants), SYSTEM])
    route = None
    if plan.nodes:
        password = _password(folder, ROUTE)
        route = password, _hashed(password)
    folder.write("users.json", json.dumps(told, indent=2).encode() + b"\n")
    folder.write("nats.conf", configuration(plan, proofs, route).encode())
    click.echo(f"{folder.path / 'nats.conf'}: nats-server --config {folder.seen('nats.conf')}")
    for name in told:
        click.echo(f"  {name}: {folder.path / 'users' / name}.{'nk' if auth == 'nkey' else 'password'}")
