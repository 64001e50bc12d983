"""What a machine does when it starts: scripts, cloud-init, container declarations, documents of a fleet manager."""

import re
from collections.abc import Iterator, Mapping

from policies.commands import started_by
from policies.containers import containers_in
from policies.programs import Allowed
from policies.texts import decoded, documents_in
from policies.unknown import is_unknown

__all__ = ["machine_reasons", "startup_reasons", "startup_texts"]

_KEYS = re.compile(
    r"^(user-?data(base64|replaceonchange)?|customdata|cloud-?init(config)?|cloud-?config|metadata-?startup-?script|"
    r"startup-?script(-url)?|shutdown-?script|gce-container-declaration|user\.user-data|user\.vendor-data|vendor-?data|"
    r"cloud-init\.(user|vendor)-data|user\.network-config|boot-?script|provision(ing)?script|initscript|install-?script|"
    r"commandtoexecute|script|inlinescript|inline|content|data|runcommand|commands?|snippet|ignition|butane|"
    r"configdata|payload|rendered|sourceraw|kickstart|preseed|scriptcontent|file_content|filecontent|desiredconfig|settings|protectedsettings)$"
)
_CERTAIN = re.compile(r"user-?_?data|custom-?data|cloud-?init|cloud-?config|startup-?script|boot-?script|gce-container")
# What of a resource holds such texts under a name that says little.
_HOLDERS = re.compile(
    r"^(aws(-native)?:(ssm|imagebuilder|ec2|lightsail|opsworks|autoscaling|batch|emr|gamelift|codebuild)|gcp:(compute|osconfig)"
    r"|google-native:(compute|osconfig)|azure(-native)?:(compute|resources|core|hybridcompute|automation|batch|containerservice)|lxd:|incus:"
    r"|libvirt:|proxmox|cloudinit:|hcloud:|digitalocean:|vultr:|linode:|scaleway:|oci:|openstack:|vsphere:|equinix|ovh:|exoscale:"
    r"|alicloud:|tencentcloud:|yandex:|upcloud:|civo:|xen|hyperv:|ibm:|ionoscloud:|stackit:|latitude|kubevirt|packet:|nutanix|maas:|multipass|esxi|"
    r"outscale:|cloudstack:|opennebula:|huaweicloud:|flexibleengine:|nirvana|virtualbox|vagrant|talos:|matchbox|ct:|ignition:)",
    re.IGNORECASE,
)


def startup_texts(
    value: object, path: str = "", depth: int = 48, *, any_name: bool = False
) -> Iterator[tuple[str, str]]:
    """The texts in a document that a machine runs or reads when it starts, and where they stand.

    Args:
        any_name: whether texts under names such as ``content`` and ``script`` count too.
    """
    if depth == 0:
        return
    if isinstance(value, Mapping):
        for key, entry in value.items():
            here = f"{path}.{key}" if path else str(key)
            name = str(key).lower().replace("_", "-") if "." in str(key) else str(key).lower().replace("_", "")
            certain = bool(_CERTAIN.search(str(key).lower()))
            if certain or (any_name and _KEYS.match(name)):
                yield from _texts(entry, here, depth - 1, any_name=True)
            else:
                yield from startup_texts(entry, here, depth - 1, any_name=any_name)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from startup_texts(entry, f"{path}[{index}]", depth - 1, any_name=any_name)


def _texts(value: object, path: str, depth: int, *, any_name: bool) -> Iterator[tuple[str, str]]:
    """What stands under such a name: a text, the words or lines of a list, or a function of a template around one."""
    if isinstance(value, str):
        if not is_unknown(value):
            yield path, value
    elif isinstance(value, list) and value and all(isinstance(entry, str) for entry in value):
        yield path, "\n".join(value)
    elif isinstance(value, Mapping) and len(value) == 1 and str(next(iter(value))).startswith("Fn::"):
        yield from _joined(next(iter(value.values())), path, depth)
    elif depth:
        yield from startup_texts(value, path, depth - 1, any_name=any_name)
        if isinstance(value, Mapping):
            yield from ((f"{path}.{key}", entry) for key, entry in value.items() if isinstance(entry, str))


def _joined(value: object, path: str, depth: int) -> Iterator[tuple[str, str]]:
    # {"Fn::Base64": {"Fn::Join": ["\n", ["#!/bin/sh", …]]}}, {"Fn::Sub": [text, variables]}
    if isinstance(value, list):
        texts = [part for entry in value for part in (entry if isinstance(entry, list) else [entry])]
        separator = value[0] if value and isinstance(value[0], str) and len(value[0]) < 3 else "\n"
        yield path, separator.join(part for part in texts if isinstance(part, str) and part != separator)
    else:
        yield from _texts(value, path, depth - 1, any_name=True) if depth else ()


def startup_reasons(text: str, allowed: Allowed) -> Iterator[str]:
    """Why what a machine starts with starts a PostgreSQL server: one phrase for each."""
    plain = decoded(text)
    if is_unknown(plain):
        return
    yield from started_by(plain, allowed)
    for document in documents_in(plain, any_tag=True, guessed=True):
        if isinstance(document, Mapping | list):
            yield from _structured(document, allowed, 16)


def _structured(document: object, allowed: Allowed, depth: int) -> Iterator[str]:
    for container in containers_in(document):
        reason = container.forbidden()
        if reason and not allowed(container.image):
            yield f"runs a container of which {reason}"
    yield from _cloud_config(document, allowed, depth)


def _cloud_config(document: object, allowed: Allowed, depth: int, key: str = "") -> Iterator[str]:
    if depth == 0:
        return
    if isinstance(document, Mapping):
        for name, entry in document.items():
            yield from _cloud_config(entry, allowed, depth - 1, str(name).lower())
    elif isinstance(document, list):
        for text in _commands(document, key):
            yield from started_by(text, allowed)
        for entry in document:
            if not isinstance(entry, str):
                yield from _cloud_config(entry, allowed, depth - 1, key)
    elif isinstance(document, str) and (" " in document or "\n" in document):
        yield from startup_reasons(document, allowed)


def _commands(entries: list[object], key: str) -> Iterator[str]:
    if key == "packages":
        names = (entry[0] if isinstance(entry, list) and entry else entry for entry in entries)
        yield from (f"apt-get install {name}" for name in names if isinstance(name, str))
    else:
        # The words of one command, or a command in each.
        words = [entry for entry in entries if isinstance(entry, str)]
        yield from (" ".join(words), "\n".join(words))


def machine_reasons(kind: str, properties: Mapping[str, object], allowed: Allowed) -> Iterator[str]:
    """Why a machine, or what configures one, starts a PostgreSQL server: one sentence for each.

    Args:
        kind: the type of the resource.
        properties: what it is given.
    """
    for path, text in startup_texts(properties, any_name=bool(_HOLDERS.match(kind))):
        yield from (f"{path} {reason}" for reason in dict.fromkeys(startup_reasons(text, allowed)))
