"""The public keys of all tokens, published into the database: PostgREST and Realtime follow without a restart.

Each run publishes what OpenBao serves at that moment. OpenBao has a key in its JWKS one rotation before it signs with
it, and keeps it there for as long as what it signed is valid, so a set that is published once in a rotation period is
never too old. Where the services run on a cluster, a job there does the same every quarter of an hour.
"""

import json
from collections.abc import Mapping
from typing import Any

import psycopg
import pulumi
import requests
from psycopg.types.json import Jsonb
from pulumi.dynamic import ReadResult

from components.database_resource import DatabaseResource
from components.dynamic import ApplyingProvider
from components.platform import DatabaseConnection
from data_plane.clients import openbao
from data_plane.clients.postgres import CONNECTION, connect, connection_of, explain
from data_plane.errors import DataPlaneError
from data_plane.model.naming import JWKS_PATH

__all__ = ["VerifyingKeys", "VerifyingKeysError", "served_keys"]

_TIMEOUT_SECONDS = 15


class VerifyingKeysError(DataPlaneError):
    """The keys could not be fetched or were refused; those that were published before still hold."""

    code = "verifying-keys"


def served_keys(address: str, extra: str | None = None) -> dict[str, Any]:
    """The JWKS of every key that a token may be signed with now.

    Args:
        address: OpenBao's URL.
        extra: a JWKS of further public keys, as JSON.

    Raises:
        VerifyingKeysError: if OpenBao does not answer with a JWKS.
    """
    try:
        with openbao.patient(requests.Session()) as session:
            answer = session.get(f"{address}{JWKS_PATH}", timeout=_TIMEOUT_SECONDS)
        answer.raise_for_status()
        keys = [*answer.json()["keys"], *(json.loads(extra)["keys"] if extra else [])]
    except requests.JSONDecodeError as error:
        raise VerifyingKeysError(f"{address}{JWKS_PATH} did not answer with JSON") from error
    except requests.RequestException as error:
        raise VerifyingKeysError(f"{address}{JWKS_PATH}: {openbao.explain(error)}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise VerifyingKeysError(f"{address}{JWKS_PATH} or the extra keys: no JWKS") from error
    return {"keys": keys}


class _Provider(ApplyingProvider):
    inputs = (*CONNECTION, "address", "extra")

    def id_of(self, props: Mapping[str, Any]) -> str:
        return "verifying-keys"

    def is_current(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
        # Asked for here and not only on refresh: keys rotate between one run and the next without anybody's doing.
        return bool(olds.get("published") == _names(served_keys(news["address"], news.get("extra"))))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        with connect(props) as connection:
            row = connection.execute("select jwks from data_plane.verifying_keys").fetchone()
        published = _names(row[0]) if row else []
        return ReadResult(id_=id_, outs={**_described(props), "published": published})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Nothing: without keys no token would be believed."""

    def apply(self, props: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
        served = served_keys(props["address"], props.get("extra"))
        try:
            with connect(props) as connection:
                connection.execute("select data_plane.publish_keys(%s)", [Jsonb(served)])
        except psycopg.Error as error:
            raise VerifyingKeysError(f"the keys were not published: {explain(error)}") from error
        return {**_described(props), "published": _names(served)}


def _names(jwks: dict[str, Any]) -> list[str]:
    return sorted(str(key.get("kid")) for key in jwks["keys"])


def _described(props: dict[str, Any]) -> dict[str, Any]:
    return {**connection_of(props), "address": props["address"], "extra": props.get("extra")}


class VerifyingKeys(DatabaseResource, module="central", name="VerifyingKeys"):
    """Publishes OpenBao's JWKS into the database, at every run in which it is not what is published already.

    Args:
        address: OpenBao's URL.
        database: the central database.
        extra: a JWKS of further public keys, as JSON: those with which Auth signs.

    Raises:
        DatabaseUnavailableError, VerifyingKeysError: while it is applied.
    """

    published: pulumi.Output[list[str]]
    """The names (``kid``) of the keys that are published."""

    def __init__(
        self,
        name: str,
        *,
        address: pulumi.Input[str],
        database: DatabaseConnection,
        extra: pulumi.Input[str] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {"address": address, "extra": extra, "published": None}
        super().__init__(_Provider(), name, database, props, opts)
