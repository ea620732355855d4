from pathlib import Path

from warmwire.worker.cli.claude_code import Claude
from warmwire.worker.cli.launch import Launch, Spawning, traced

FOLDER = Path("/data/s1")
WORKER = {
    "PATH": "/bin",
    "LANG": "de_DE.UTF-8",
    "HOME": "/root",
    "ANTHROPIC_API_KEY": "key",
    "ANTHROPIC_BASE_URL": "http://api",
    "ANTHROPIC_AUTH_TOKEN": "not passed",
    "AWS_SECRET_ACCESS_KEY": "not passed",
    "CLAUDECODE": "1",
    "WARMWIRE_NATS": "nats://secret@somewhere",
    "WARMWIRE_EMULATOR_RATE": "50",
}


def launched(
    model: str | None = None, system_prompt: str | None = None, resume: Path | None = None
) -> Launch:
    return Claude().launch(
        ("cli", "sub"),
        Spawning(
            folder=FOLDER,
            session="1-2",
            environment=WORKER,
            model=model,
            system_prompt=system_prompt,
            resume=resume,
        ),
    )


def test_the_command_comes_first_and_may_have_arguments() -> None:
    assert ("cli", "sub", "--print") == launched().argv[:3]


def test_each_value_is_one_argument_with_its_flag() -> None:
    argv = launched(model="--evil", system_prompt="--mcp-config=x").argv
    assert "--model=--evil" in argv
    assert "--system-prompt=--mcp-config=x" in argv


def test_a_new_conversation_has_its_session_id() -> None:
    argv = launched().argv
    assert "--session-id=1-2" in argv
    assert [] == [flag for flag in argv if flag.startswith(("--resume", "--model", "--mcp-config"))]


def test_a_resumed_conversation_has_its_transcript_instead() -> None:
    argv = launched(resume=Path("/data/past.jsonl")).argv
    assert "--resume=/data/past.jsonl" in argv
    assert "--session-id=1-2" not in argv


def test_an_empty_system_prompt_is_not_the_default_one() -> None:
    assert "--system-prompt=" in launched(system_prompt="").argv
    assert "--system-prompt=You are a helpful assistant." in launched().argv


def test_the_environment_is_ours_and_what_must_pass() -> None:
    assert {
        "PATH": "/bin",
        "LANG": "de_DE.UTF-8",
        "HOME": "/data/s1/home",
        "CLAUDE_CONFIG_DIR": "/data/s1/home/.claude",
        "TMPDIR": "/data/s1/tmp",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "2",
        "ANTHROPIC_API_KEY": "key",
        "ANTHROPIC_BASE_URL": "http://api",
        "WARMWIRE_EMULATOR_RATE": "50",
    } == launched().env


def test_a_cli_that_is_traced_is_told_where_to_and_below_what_and_no_header() -> None:
    plan = launched()
    more = traced(plan, "http://collector", "00-a-b-01").env.items() - plan.env.items()
    told = {name: value for name, value in more if name in ("TRACEPARENT", "OTEL_EXPORTER_OTLP_ENDPOINT")}
    assert {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector", "TRACEPARENT": "00-a-b-01"} == told
    assert [] == [name for name, _ in more if "HEADERS" in name]


def test_everything_it_writes_lies_in_the_folder_of_the_session() -> None:
    found = launched()
    assert found.cwd in found.folders
    assert all(folder.is_relative_to(FOLDER) for folder in found.folders)
