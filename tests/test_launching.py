"""What the page on scaling says to launch gives each worker its `TF_CONFIG`."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rnn_tf.training import cluster
from rnn_tf.training.cluster import Cluster

DOCS = Path(__file__).parents[1] / "docs"
# In place of the programs of a cluster: `srun` runs one task, `rnn-tf` says what it was given.
PROGRAMS = {
    "srun": 'shift; exec "$@"',
    "scontrol": "printf 'node1\\nnode2\\nnode3\\n'",
    "rnn-tf": 'printf "%s\\n" "$TF_CONFIG" "$*"',
}


@pytest.fixture
def programs(tmp_path: Path) -> str:
    for name, script in PROGRAMS.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


def launched(
    command: list[str], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> tuple[Cluster, str]:
    """The cluster that a worker is told of, and its arguments."""
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    config, arguments = done.stdout.splitlines()
    monkeypatch.setenv(cluster.VARIABLE, config)
    return Cluster.from_environment(), arguments


def test_slurm(programs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, section = (DOCS / "scaling.md").read_text().partition("## Slurm\n")
    script = textwrap.dedent(section.partition("\n## ")[0]).strip()
    environment = {"PATH": programs, "SLURM_PROCID": "2", "SLURM_JOB_NODELIST": "node[1-3]"}
    found, arguments = launched(["bash", "-c", script], environment, monkeypatch)
    assert found.addresses == ("node1:8470", "node2:8470", "node3:8470")
    assert found.index == 2
    assert arguments.startswith("train --strategy multi_worker ")


def strict(schema: Any) -> Any:
    """`schema` as Kubernetes reads it: a field that it does not name is a mistake."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    read = {name: strict(each) for name, each in schema.items()}
    if isinstance(read.get("properties"), dict):
        read.setdefault("additionalProperties", False)
    return read


def test_the_manifest_is_what_its_schema_says() -> None:
    schema = json.loads((Path(__file__).parent / "jobset" / "v1alpha2.json").read_text())
    # The schema leaves this to Kubernetes, which says the same of every object.
    schema["properties"]["metadata"] = {"type": "object"}
    validator = jsonschema.Draft202012Validator(strict(schema))
    manifest: Any = yaml.safe_load((DOCS / "jobset.yaml").read_text())
    validator.validate(manifest)
    pods = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    pods["completion"] = pods.pop("completions")
    with pytest.raises(jsonschema.ValidationError, match="'completion' was unexpected"):
        validator.validate(manifest)


def test_kubernetes(programs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest: Any = yaml.safe_load((DOCS / "jobset.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = manifest["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    # An index for each pod, all at once, and none is started again without the others.
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    assert spec["backoffLimit"] == 0
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    mounted = [mount["name"] for mount in container["volumeMounts"]]
    assert mounted == [volume["name"] for volume in pod["volumes"]]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment == {"WORKERS": str(spec["completions"])}
    environment |= {"PATH": programs, "JOB_COMPLETION_INDEX": "3"}
    found, arguments = launched(container["command"], environment, monkeypatch)
    name, port = manifest["metadata"]["name"], container["ports"][0]["containerPort"]
    assert found.addresses == tuple(
        f"{name}-{job['name']}-0-{index}.{name}:{port}" for index in range(4)
    )
    assert found.index == 3
    assert "--resume" in arguments
