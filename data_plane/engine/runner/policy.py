"""Policy packs, run as the engine runs them: a process of their own that is asked over gRPC."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc, resource_pb2

from data_plane.engine.runner.properties import Properties
from data_plane.errors import DataPlaneError, PolicyPackError

__all__ = ["PolicyPack", "Violation"]

_PROVIDERS = "pulumi:providers:"
_CALL_SECONDS = 120
_START_SECONDS = 60
_MESSAGE_BYTES = 400 * 1024 * 1024  # what the engine allows

Registered = Iterable[tuple[resource_pb2.RegisterResourceRequest, str, Properties]]


@dataclass(frozen=True)
class Violation:
    """What a policy has against a resource or the stack."""

    policy: str
    mandatory: bool
    message: str
    urn: str


class PolicyPack:
    """A running policy pack; use it in a ``with`` statement.

    Args:
        folder: where the pack's ``PulumiPolicy.yaml`` is.
        project, stack, preview: what is being checked.
        config: a file as the CLI's ``--policy-pack-config`` takes it: levels and settings by policy.

    Raises:
        DataPlaneError: if the pack does not start, or the file says something that it does not know.
    """

    def __init__(self, folder: Path, project: str, stack: str, *, preview: bool, config: Path | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-u", "-m", "pulumi.policy", "127.0.0.1:0", str(folder)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PULUMI_PROJECT": project,
                "PULUMI_STACK": stack,
                "PULUMI_DRY_RUN": str(preview).lower(),
            },
        )
        port = _first_line(self._process, _START_SECONDS)
        if not port.isdecimal():
            self._process.kill()
            _, errors = self._process.communicate()
            raise PolicyPackError(f"the policy pack in {folder} does not start:\n{errors.strip() or 'it says nothing'}")
        limits = [("grpc.max_receive_message_length", _MESSAGE_BYTES), ("grpc.max_send_message_length", _MESSAGE_BYTES)]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=limits)
        self._analyzer = analyzer_pb2_grpc.AnalyzerStub(self._channel)
        self._providers: dict[str, analyzer_pb2.AnalyzerProviderResource] = {}
        information = self._analyzer.GetAnalyzerInfo(empty_pb2.Empty(), timeout=_CALL_SECONDS)
        self.name: str = information.name
        if config is not None:
            try:
                self._analyzer.Configure(_configuration(config, information), timeout=_CALL_SECONDS)
            except DataPlaneError:
                self.close()
                raise

    def check_resource(
        self, request: resource_pb2.RegisterResourceRequest, urn: str, inputs: Properties
    ) -> list[Violation]:
        """What the resource policies say of one resource, before it is applied."""
        if request.type.startswith(_PROVIDERS):
            self._providers[urn] = analyzer_pb2.AnalyzerProviderResource(
                type=request.type, properties=inputs.encode(), urn=urn, name=request.name
            )
        asked = analyzer_pb2.AnalyzeRequest(
            type=request.type,
            properties=inputs.encode(),
            urn=urn,
            name=request.name,
            options=_options(request),
            provider=self._provider_of(request),
        )
        return _violations(self._analyzer.Analyze(asked, timeout=_CALL_SECONDS), urn)

    def check_stack(self, registered: Registered) -> list[Violation]:
        """What the stack policies say of all resources together."""
        resources = [
            analyzer_pb2.AnalyzerResource(
                type=request.type,
                properties=inputs.encode(),
                urn=urn,
                name=request.name,
                options=_options(request),
                provider=self._provider_of(request),
                parent=request.parent,
                dependencies=list(request.dependencies),
                propertyDependencies={
                    key: analyzer_pb2.AnalyzerPropertyDependencies(urns=list(found.urns))
                    for key, found in request.propertyDependencies.items()
                },
            )
            for request, urn, inputs in registered
        ]
        asked = analyzer_pb2.AnalyzeStackRequest(resources=resources)
        return _violations(self._analyzer.AnalyzeStack(asked, timeout=_CALL_SECONDS), "")

    def _provider_of(
        self, request: resource_pb2.RegisterResourceRequest
    ) -> analyzer_pb2.AnalyzerProviderResource | None:
        urn, _, _id = request.provider.rpartition("::")
        return self._providers.get(urn)

    def close(self) -> None:
        """Ends the pack's process."""
        self._channel.close()
        self._process.terminate()
        try:
            self._process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


def _first_line(process: subprocess.Popen[str], seconds: float) -> str:
    """What a process says first; empty if it says nothing in time."""
    if process.stdout is None or not select.select([process.stdout], [], [], seconds)[0]:
        return ""
    return process.stdout.readline().strip()


def _options(request: resource_pb2.RegisterResourceRequest) -> analyzer_pb2.AnalyzerResourceOptions:
    return analyzer_pb2.AnalyzerResourceOptions(
        protect=request.protect,
        ignoreChanges=list(request.ignoreChanges),
        aliases=list(request.aliasURNs),
        parent=request.parent,
    )


def _configuration(file: Path, known: analyzer_pb2.AnalyzerInfo) -> analyzer_pb2.ConfigureAnalyzerRequest:
    """What a file says of a pack's policies, over what they are by themselves.

    Raises:
        DataPlaneError: naming the file and what in it is wrong.
    """
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PolicyPackError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(said, dict):
        raise PolicyPackError(f"{file}: expected an object with a policy's name for each key")
    policies = {policy.name: policy for policy in known.policies}
    strange = sorted(set(said) - {*policies, "all"})
    if strange:
        raise PolicyPackError(f"{file}: no policy {strange[0]!r}; there are: {', '.join(sorted(policies))}")
    answer = analyzer_pb2.ConfigureAnalyzerRequest()
    for name, policy in policies.items():
        level = policy.enforcementLevel
        settings: dict[str, Any] = {}
        for key in ("all", name):
            entry = said.get(key, {})
            entry = {"enforcementLevel": entry} if isinstance(entry, str) else entry
            if not isinstance(entry, dict):
                raise PolicyPackError(f"{file}: {key}: expected an enforcement level or an object")
            level = _level(file, key, entry.get("enforcementLevel"), level)
            settings.update({setting: value for setting, value in entry.items() if setting != "enforcementLevel"})
        strange = sorted(set(settings) - set(policy.configSchema.properties.keys()))
        if strange:
            raise PolicyPackError(f"{file}: {name}: no setting {strange[0]!r}")
        answer.policyConfig[name].enforcementLevel = level
        answer.policyConfig[name].properties.update(settings)
    return answer


def _level(file: Path, policy: str, said: object, otherwise: int) -> int:
    if said is None:
        return otherwise
    levels = {name.lower(): number for name, number in analyzer_pb2.EnforcementLevel.items()}
    if not isinstance(said, str) or said not in levels:
        raise PolicyPackError(f"{file}: {policy}: enforcementLevel {said!r}; expected one of {', '.join(levels)}")
    return int(levels[said])


def _violations(answer: analyzer_pb2.AnalyzeResponse, urn: str) -> list[Violation]:
    return [
        Violation(
            policy=found.policyName,
            mandatory=found.enforcementLevel in (analyzer_pb2.MANDATORY, analyzer_pb2.REMEDIATE),
            message=found.message,
            urn=found.urn or urn,
        )
        for found in answer.diagnostics
    ]
