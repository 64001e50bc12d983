"""Digests of container images, asked of their registries (OCI distribution protocol)."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.util import Retry

from data_plane.errors import DataPlaneError

__all__ = ["ImageReference", "RegistryError", "digest_of", "registry_session"]

_DOCKER_HUB = "registry-1.docker.io"
"""Where the API is of the registry that a reference without a host means."""
_HUBS_NAMES = ("docker.io", "index.docker.io")
_TIMEOUT_SECONDS = (5, 30)
_ACCEPTED = (
    # An index is of all platforms, so its digest is the same wherever it is pulled.
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_RETRY = Retry(
    total=5,
    connect=1,  # a registry out of reach is so for every image
    backoff_factor=0.5,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=("GET", "HEAD"),
    raise_on_status=False,
    # A limit that lasts for hours is an error, not something to wait for.
    retry_after_max=60,
)


class RegistryError(DataPlaneError):
    """A container registry does not say which image a tag stands for."""

    code = "registry-refused"


@dataclass(frozen=True)
class ImageReference:
    """An image by its tag, and the registry that has it."""

    host: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> "ImageReference":
        """Takes ``[host/]repository:tag[@digest]`` apart, as a container runtime does."""
        name, _, tag = text.partition("@")[0].rpartition(":")
        host, slash, rest = name.partition("/")
        if not slash or not (re.search(r"[.:]", host) or host == "localhost"):
            host, rest = _HUBS_NAMES[0], name
        if host in _HUBS_NAMES:
            return cls(_DOCKER_HUB, rest if "/" in rest else f"library/{rest}", tag)
        return cls(host, rest, tag)

    @property
    def url(self) -> str:
        """The address of its manifest. A registry on this machine may be without TLS, as runtimes have it."""
        scheme = "http" if _is_loopback(self.host) else "https"
        return f"{scheme}://{self.host}/v2/{self.repository}/manifests/{self.tag}"


def registry_session() -> requests.Session:
    """A session that tries again what may pass: limits, a gateway, a lost connection."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=_RETRY))
    return session


def digest_of(image: ImageReference, session: requests.Session) -> str:
    """The digest that a tag stands for now.

    A registry that wants a token is asked for one, with what ``~/.netrc`` has for that host, else anonymously.

    Raises:
        RegistryError: with what is wrong.
    """
    with _explained(image):
        answer = _ask("HEAD", image, session, None)
        token = None
        if answer.status_code == requests.codes.unauthorized:
            token = _token(answer, session)
            answer = _ask("HEAD", image, session, token)
        _check(answer, image)
        digest = answer.headers.get("Docker-Content-Digest")
        if digest is None:
            # The header is optional; a digest is the checksum of the manifest as it is sent.
            answer = _ask("GET", image, session, token)
            _check(answer, image)
            digest = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
    if not _DIGEST.fullmatch(digest):
        raise RegistryError(f"{image.host} answers with a digest that is none: {digest[:80]!r}")
    return digest


class _Bearer(AuthBase):
    """A token. As ``auth`` it is not replaced by what ``~/.netrc`` has for the host."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _ask(method: str, image: ImageReference, session: requests.Session, token: str | None) -> requests.Response:
    return session.request(
        method,
        image.url,
        headers={"Accept": ", ".join(_ACCEPTED)},
        auth=_Bearer(token),
        timeout=_TIMEOUT_SECONDS,
        allow_redirects=True,
    )


def _token(refusal: requests.Response, session: requests.Session) -> str:
    """The token that a refusal says where to get."""
    host = urlsplit(refusal.url).hostname
    scheme, _, rest = refusal.headers.get("WWW-Authenticate", "").partition(" ")
    parameters = dict(_PARAMETER.findall(rest))
    realm = parameters.pop("realm", "")
    if scheme.lower() != "bearer" or not realm.startswith(("http://", "https://")):
        raise RegistryError(f"{host} wants a sign-in that is not supported here ({scheme or 'none is named'})")
    wanted = {key: parameters[key] for key in ("service", "scope") if key in parameters}
    answer = session.get(realm, params=wanted, timeout=_TIMEOUT_SECONDS)
    if not answer.ok:
        raise RegistryError(
            f"{urlsplit(realm).hostname} gives no token ({answer.status_code}): "
            "see whether the repository is right; a private one needs a login for this host in ~/.netrc"
        )
    found = answer.json()
    token = (found.get("token") or found.get("access_token")) if isinstance(found, dict) else None
    if not isinstance(token, str):
        raise RegistryError(f"{urlsplit(realm).hostname} answers without a token")
    return token


def _check(answer: requests.Response, image: ImageReference) -> None:
    match answer.status_code:
        case requests.codes.ok:
            kind = answer.headers.get("Content-Type", "").partition(";")[0]
            if kind not in _ACCEPTED:
                raise RegistryError(f"{image.host} answers with {kind or 'no type'}, which is no image's manifest")
        case requests.codes.not_found:
            raise RegistryError(f"{image.host} has no such image: see whether repository and tag are right")
        case requests.codes.unauthorized | requests.codes.forbidden:
            raise RegistryError(f"{image.host} refuses ({answer.status_code}): see whether the repository is right")
        case requests.codes.too_many_requests:
            raise RegistryError(f"{image.host} takes no more requests for now: try again later")
        case status:
            raise RegistryError(f"{image.host} answers {status}: try again later")


@contextmanager
def _explained(image: ImageReference) -> Iterator[None]:
    try:
        yield
    except requests.JSONDecodeError as error:
        raise RegistryError(f"what {image.host} names for tokens answers with something else") from error
    except requests.exceptions.SSLError as error:
        raise RegistryError(f"the certificate of {image.host} is not trusted: set REQUESTS_CA_BUNDLE") from error
    except requests.RequestException as error:
        cause = "no answer in time" if isinstance(error, requests.Timeout) else "no connection"
        raise RegistryError(f"{image.host}: {cause}; see whether this machine reaches it, then try again") from error


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
