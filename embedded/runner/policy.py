"""Policy packs, run as the engine runs them: a process of their own that is asked over gRPC."""

import os
import select
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc, resource_pb2

from embedded.errors import EmbeddedError
from embedded.runner.properties import Properties

__all__ = ["PolicyPack", "Violation"]

_MANIFEST = "PulumiPolicy.yaml"
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

    Raises:
        EmbeddedError: if the pack does not start.
    """

    def __init__(self, folder: Path, project: str, stack: str, *, preview: bool) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pulumi.policy", "127.0.0.1:0", str(folder)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",  # the SDK writes its port and does not flush
                "PULUMI_PROJECT": project,
                "PULUMI_STACK": stack,
                "PULUMI_DRY_RUN": str(preview).lower(),
            },
        )
        port = _first_line(self._process, _START_SECONDS)
        if not port.isdecimal():
            self._process.kill()
            _, errors = self._process.communicate()
            raise EmbeddedError(f"the policy pack in {folder} does not start:\n{errors.strip() or 'it says nothing'}")
        limits = [("grpc.max_receive_message_length", _MESSAGE_BYTES), ("grpc.max_send_message_length", _MESSAGE_BYTES)]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=limits)
        self._analyzer = analyzer_pb2_grpc.AnalyzerStub(self._channel)
        self.name: str = self._analyzer.GetAnalyzerInfo(empty_pb2.Empty(), timeout=_CALL_SECONDS).name

    @staticmethod
    def is_pack(folder: Path) -> bool:
        """Whether there is a pack in a folder."""
        return (folder / _MANIFEST).is_file()

    def check_resource(
        self, request: resource_pb2.RegisterResourceRequest, urn: str, inputs: Properties
    ) -> list[Violation]:
        """What the resource policies say of one resource, before it is applied."""
        asked = analyzer_pb2.AnalyzeRequest(
            type=request.type,
            properties=inputs.encode(),
            urn=urn,
            name=request.name,
            options=_options(request),
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
        protect=request.protect, ignoreChanges=list(request.ignoreChanges), aliases=list(request.aliasURNs)
    )


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
