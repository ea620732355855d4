"""The manifests are what Kubernetes accepts, and say what docs/kubernetes.md promises.

kustomize itself is not used: `built` does what these overlays ask of it, and refuses what it does not know.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from warmwire.broker.telemetry import INSTRUMENTS
from warmwire.compose.cli import COMMANDS, Role
from warmwire.compose.options import settings_of

from tests.compose.secured import write
from tests.conftest import require

HERE = Path(__file__).parents[2] / "compose" / "kubernetes"
OVERLAYS = ("base", "overlays/emulator", "overlays/claude", "overlays/keda")
VERSIONS = ("1.30", "1.36")
Object = dict[str, Any]
KNOWN = {"apiVersion", "kind", "namespace", "resources", "patches", "images"}


# -- what kustomize would make of a folder


@cache
def parsed(path: Path) -> list[Object]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def documents(path: Path) -> list[Object]:
    return deepcopy(parsed(path))


def built(folder: Path) -> list[Object]:
    (asked,) = documents(folder / "kustomization.yaml")
    assert asked.keys() <= KNOWN, "this test does not know how to do that"
    objects: list[Object] = []
    for name in asked["resources"]:
        path = (folder / name).resolve()
        objects += built(path) if path.is_dir() else documents(path)
    for each in objects:
        if "namespace" in asked and each["kind"] != "Namespace":
            each["metadata"]["namespace"] = asked["namespace"]
    for patch in asked.get("patches", []):
        for change in documents(folder / patch["path"]):
            (target,) = [each for each in objects if identity(each) == identity(change)]
            objects[objects.index(target)] = merged(target, change)
    for image in asked.get("images", []):
        for container in [each for made in objects for each in containers(made)]:
            if container["image"] == image["name"]:
                container["image"] = image["newName"]
    return objects


def identity(each: Object) -> tuple[str, str, str]:
    return each["kind"], each["metadata"]["name"], each["metadata"].get("namespace", "")


def merged(base: Any, change: Any) -> Any:
    """A strategic merge, of what these patches have: maps, lists of things with names, and null to remove."""
    if isinstance(base, dict) and isinstance(change, dict):
        both = base | {name: merged(base.get(name), value) for name, value in change.items()}
        return {name: value for name, value in both.items() if value is not None}
    if isinstance(base, list) and all(isinstance(each, dict) and "name" in each for each in [*base, *change]):
        named = {each["name"]: each for each in base}
        return list(
            (named | {each["name"]: merged(named.get(each["name"]), each) for each in change}).values()
        )
    return change


def containers(each: Object) -> list[Object]:
    pod = each.get("spec", {}).get("template", {}).get("spec", {})
    return [*pod.get("containers", []), *pod.get("initContainers", [])]


def pods() -> list[tuple[str, Object]]:
    found = [
        (f"{overlay}: {each['metadata']['name']}", each)
        for overlay in OVERLAYS
        for each in built(HERE / overlay)
        if containers(each)
    ]
    assert len(found) == 3 * len(OVERLAYS)
    return found


PODS = pytest.mark.parametrize("each", [each for _, each in pods()], ids=[name for name, _ in pods()])


def environment(container: Object) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container.get("env", [])}


def one(kind: str, name: str, overlay: str = "base") -> Object:
    (found,) = [
        each for each in built(HERE / overlay) if (each["kind"], each["metadata"]["name"]) == (kind, name)
    ]
    return found


# -- claims


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_as_the_official_schemas_want_it(overlay: str, version: str) -> None:
    objects = built(HERE / overlay)
    ours = [each for each in objects if each["apiVersion"] != "keda.sh/v1alpha1"]  # whose schema is not there
    for each in ours:
        kubernetes_validate.validate(each, version, strict=True)
    assert len(ours) >= 15
    names = [identity(each) for each in objects]
    assert len(names) == len(set(names))


def test_what_is_no_manifest_is_noticed() -> None:
    wrong = one("Deployment", "worker")
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 5
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@PODS
def test_no_pod_has_more_rights_than_it_needs(each: Object) -> None:
    pod = each["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == each["metadata"]["name"]
    assert (True, "RuntimeDefault") == (
        pod["securityContext"]["runAsNonRoot"],
        pod["securityContext"]["seccompProfile"]["type"],
    )
    assert pod["securityContext"]["runAsUser"] > 0
    for container in containers(each):
        wanted = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert wanted == container["securityContext"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert {"startupProbe", "readinessProbe", "livenessProbe", "lifecycle"} <= container.keys()


@PODS
def test_what_is_written_to_is_a_volume_and_what_is_mounted_is_there(each: Object) -> None:
    pod = each["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])}
    for container in containers(each):
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert volumes == mounted.keys()
        for value in environment(container).values():
            if value.startswith("/"):
                assert any(value.startswith(path) for path in mounted.values()), value


@PODS
def test_a_pod_is_given_the_time_that_its_role_takes_to_leave(each: Object) -> None:
    pod, (container,) = each["spec"]["template"]["spec"], containers(each)
    drain = float(environment(container).get("WARMWIRE_DRAIN_TIMEOUT", 35))  # lame duck mode of NATS
    beside = {"worker": 30, "edge": 15, "nats": 10}[container["name"]]
    assert pod["terminationGracePeriodSeconds"] >= drain + beside


@PODS
def test_every_variable_is_a_setting_and_no_secret_is_in_one(each: Object) -> None:
    for container in containers(each):
        role = COMMANDS.get(container["name"])
        known = {"NATS_NAME", "GOMEMLIMIT", "ANTHROPIC_API_KEY"}
        if isinstance(role, Role):
            known |= {setting.variable for setting in settings_of(role.settings_class())}
        assert environment(container).keys() <= known
        for variable in container["env"]:
            if "KEY" in variable["name"] and not variable["name"].endswith("_FILE"):
                assert "secretKeyRef" in variable["valueFrom"]


def test_workers_and_edges_say_they_drain_before_they_are_told_to_end() -> None:
    (worker,), (edge,) = containers(one("Deployment", "worker")), containers(one("Deployment", "edge"))
    assert ["sh", "-c", "kill -USR1 1"] == worker["lifecycle"]["preStop"]["exec"]["command"]
    assert ["sleep", "5"] == edge["lifecycle"]["preStop"]["exec"]["command"]
    assert ("/healthz", "/readyz") == tuple(
        edge[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")
    )


@pytest.mark.parametrize("name", ["edge", "worker", "nats"])
def test_no_more_than_one_of_a_kind_is_evicted_at_a_time(name: str) -> None:
    budget = one("PodDisruptionBudget", name)["spec"]
    labels = one("StatefulSet" if name == "nats" else "Deployment", name)["spec"]["template"]["metadata"][
        "labels"
    ]
    assert 1 == budget["maxUnavailable"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()


def selects(selector: Object, labels: dict[str, str]) -> bool:
    plain = selector.get("matchLabels", {}).items() <= labels.items()
    return plain and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", [])
    )


def ways(overlay: str) -> set[tuple[str, str, int]]:
    """Who may connect to what: only where both sides' policies allow it, if the other side is one of ours."""
    names = ("edge", "worker", "nats")
    made: dict[str, set[tuple[str, str, int]]] = {"Ingress": set(), "Egress": set()}
    for policy in [each["spec"] for each in built(HERE / overlay) if each["kind"] == "NetworkPolicy"]:
        for own in names:
            if not selects(policy["podSelector"], {"app.kubernetes.io/name": own}):
                continue
            for kind, rules, peers in (("Ingress", "ingress", "from"), ("Egress", "egress", "to")):
                for rule in policy.get(rules, []):
                    for peer in rule[peers]:
                        inside = [
                            name
                            for name in names
                            if "podSelector" in peer
                            and selects(peer["podSelector"], {"app.kubernetes.io/name": name})
                        ]
                        for other in inside or [outside(peer)]:
                            pair = (other, own) if kind == "Ingress" else (own, other)
                            made[kind] |= {(pair[0], pair[1], port["port"]) for port in rule["ports"]}
    both = made["Ingress"] & made["Egress"]
    return both | {way for way in made["Ingress"] | made["Egress"] if not {way[0], way[1]} <= set(names)}


def outside(peer: Object) -> str:
    if "ipBlock" in peer:
        return "internet"
    (label,) = peer["namespaceSelector"]["matchLabels"].items()
    return "/".join(label)


def test_nothing_passes_but_what_has_to() -> None:
    wanted = {
        ("warmwire.io/ingress/allowed", "edge", 8080),
        ("edge", "nats", 4222),
        ("worker", "nats", 4222),
        ("nats", "nats", 6222),
        ("warmwire.io/nats/allowed", "nats", 4222),
        *(("warmwire.io/metrics/allowed", role, 9100) for role in ("edge", "worker")),
        *((role, "kubernetes.io/metadata.name/kube-system", 53) for role in ("edge", "worker", "nats")),
    }
    assert wanted == ways("base")
    assert wanted | {("worker", "internet", 443)} == ways("overlays/claude")
    first = one("NetworkPolicy", "nothing")["spec"]
    assert ({}, ["Ingress", "Egress"]) == (first["podSelector"], first["policyTypes"])


# -- scaling


def queries() -> dict[str, str]:
    triggers = one("ScaledObject", "worker", "overlays/keda")["spec"]["triggers"]
    return {trigger["name"]: trigger["metadata"]["query"] for trigger in triggers}


def test_the_autoscaler_asks_for_metrics_that_there_are() -> None:
    for query in queries().values():
        names = set(re.findall(r"warmwire_\w+", query))
        assert names
        assert names <= INSTRUMENTS.keys()
    assert "replicas" not in one("Deployment", "worker", "overlays/keda")["spec"]


RULES = """\
groups:
  - name: scaling
    rules: [{{ record: turns, expr: '{turns}' }}, {{ record: guard, expr: '{guard}' }}]
"""
TEST = """\
rule_files: [rules.yml]
tests:
  - interval: 1m
    input_series:
      - {{ series: 'warmwire_workers{{state="serving",instance="e1"}}', values: '{workers}x2' }}
      - {{ series: 'warmwire_workers{{state="serving",instance="e2"}}', values: '{workers}x2' }}
      - {{ series: 'warmwire_free_slots{{instance="e1"}}', values: '{free}x2' }}
      - {{ series: 'warmwire_free_slots{{instance="e2"}}', values: '{free}x2' }}
      - {{ series: 'warmwire_running_turns{{instance="e1"}}', values: '{running}x2' }}
      - {{ series: 'warmwire_queue_messages{{instance="e2"}}', values: '{queued}x2' }}
    promql_expr_test:
      - {{ expr: turns, eval_time: 1m, exp_samples: [{{ labels: turns, value: {turns} }}] }}
      - {{ expr: guard, eval_time: 1m, exp_samples: [{{ labels: 'guard', value: {guard} }}] }}
"""


@pytest.mark.parametrize(
    ("workers", "running", "queued", "turns", "guard"),
    [
        (5, 100, 30, 130, 5),  # full, and more wait: nobody goes
        (5, 71, 0, 71, 5),  # 29 of 100 are free; without a worker 9 would be
        (5, 70, 0, 70, 0),  # 30 are free, and 10 would be: one may go
        (5, 0, 0, 0, 0),
        (2, 10, 0, 10, 0),
        (2, 11, 0, 11, 2),
    ],
)
def test_a_worker_goes_only_when_the_others_have_room(  # each has 20 slots
    tmp_path: Path, workers: int, running: int, queued: int, turns: int, guard: int
) -> None:
    require(shutil.which("promtool"), "promtool (Debian package prometheus)")
    (tmp_path / "rules.yml").write_text(RULES.format(**queries()))
    (tmp_path / "test.yml").write_text(
        TEST.format(
            workers=workers,
            running=running,
            free=20 * workers - running,
            queued=queued,
            turns=turns,
            guard=guard,
        )
    )
    ran = subprocess.run(
        ["promtool", "test", "rules", "test.yml"], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


# -- the page


def test_the_page_makes_every_secret_that_pods_need_from_files_that_there_are(tmp_path: Path) -> None:
    page = (HERE.parents[1] / "docs" / "kubernetes.md").read_text()
    (options,) = re.findall(r"^warmwire nats-config (.*)$", page, re.MULTILINE)
    write(tmp_path / "nats", *options.replace("--out nats ", "").split())
    made = re.search(r"```sh\n(.*?)```", page, re.DOTALL)
    assert made
    commands = made[1].replace("\\\n", " ").replace("$role", "edge") + made[1].replace("$role", "worker")
    for file in re.findall(r"--from-file=(?:\w+=)?(nats/\S+)", commands):
        assert (tmp_path / file).is_file(), file
    secrets = set(re.findall(r"create secret generic (\S+)", commands))
    needed = {
        volume["secret"]["secretName"]
        for _, each in pods()
        for volume in each["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
    }
    assert needed | {"model"} == secrets
