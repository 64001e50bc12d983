# ruff: noqa: INP001  (a program of its own, in no package)
"""Dumps in an S3-compatible object store: the part of the backup scripts that Barman has no program for.

Runs where Barman runs and needs nothing but boto3, which Barman brings along. Where the store is, is in the variables
that ``common.sh`` describes. A dump is a folder ``<prefix>/<server>/dumps/<stamp>``; with a manifest it is whole.
"""

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlparse

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

_MANIFEST = "manifest.json"
_STAMP = "%Y%m%dT%H%M%SZ"
_STAMP_PATTERN = re.compile(r"[0-9]{8}T[0-9]{6}Z")
# Longer than any dump takes: a younger folder without a manifest may be one that is being written.
_UNFINISHED_DAYS = 2


class StoreError(Exception):
    """What cannot be done, for people."""


class _Hashed:
    """A stream whose bytes are counted and hashed as they are read."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.digest = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        self.size += len(data)
        return data


class _Dumps:
    """The dumps of one server."""

    def __init__(self) -> None:
        destination = urlparse(os.environ["BACKUP_DESTINATION"])
        self._bucket = destination.netloc
        parts = [destination.path.strip("/"), os.environ["BACKUP_SERVER"], "dumps"]
        self._root = "/".join(part for part in parts if part)
        encryption = os.environ.get("BACKUP_ENCRYPTION")
        self._extra = {"ServerSideEncryption": encryption} if encryption else {}
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=os.environ.get("BACKUP_ENDPOINT") or None,
            config=Config(s3={"addressing_style": os.environ.get("BACKUP_ADDRESSING") or "auto"}),
        )

    def put(self, stamp: str, name: str) -> None:
        """Uploads standard input, and a note of its length and checksum."""
        source = _Hashed(sys.stdin.buffer)
        self._client.upload_fileobj(source, self._bucket, self._key(stamp, name), ExtraArgs=self._extra)
        note = {"name": name, "bytes": source.size, "sha256": source.digest.hexdigest()}
        self._write(self._key(stamp, name) + ".json", note)

    def remove(self, stamp: str, name: str) -> None:
        """Takes back what could not be written to its end."""
        for key in (self._key(stamp, name) + ".json", self._key(stamp, name)):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def finish(self, stamp: str) -> None:
        """Writes the manifest; standard input has a line for everything that is not in the dump."""
        notes = [json.loads(self._read(key)) for key in self._keys(stamp) if key.endswith(".json")]
        if not notes:
            raise StoreError(f"dump {stamp} is empty")
        missing = sys.stdin.read().splitlines()
        self._write(self._key(stamp, _MANIFEST), {"stamp": stamp, "files": notes, "missing": missing})

    def whole(self) -> list[str]:
        """The stamps of complete dumps, oldest first."""
        return [stamp for stamp, keys in self._folders().items() if self._key(stamp, _MANIFEST) in keys]

    def resolve(self, stamp: str) -> str:
        """The stamp itself if that dump is whole; the last one's for ``latest``."""
        whole = self.whole()
        if stamp == "latest" and whole:
            return whole[-1]
        if stamp not in whole:
            known = ", ".join(whole[-5:]) or "none"
            raise StoreError(f"there is no whole dump {stamp!r}; the latest are: {known}")
        return stamp

    def manifest(self, stamp: str) -> dict[str, Any]:
        """What a whole dump consists of."""
        return dict(json.loads(self._read(self._key(stamp, _MANIFEST))))

    def get(self, stamp: str, name: str) -> None:
        """Writes a file to standard output, and fails at the end if it is not what was put there."""
        wanted = {item["name"]: item for item in self.manifest(stamp)["files"]}.get(name)
        if wanted is None:
            raise StoreError(f"dump {stamp} has no {name}")
        body = _Hashed(self._client.get_object(Bucket=self._bucket, Key=self._key(stamp, name))["Body"])
        while data := body.read(1024 * 1024):
            sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        if body.digest.hexdigest() != wanted["sha256"]:
            raise StoreError(f"{name} of dump {stamp} is damaged: its checksum is not the one in the manifest")

    def expire(self, days: int) -> None:
        """Removes dumps that are older, but never the last whole one, and what was left unfinished."""
        kept = self.whole()[-1:]
        now = datetime.now(UTC)
        for stamp, keys in self._folders().items():
            whole = self._key(stamp, _MANIFEST) in keys
            age = now - datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
            if stamp not in kept and age > timedelta(days=days if whole else _UNFINISHED_DAYS):
                # The manifest first: what is half removed is no longer whole.
                for key in sorted(keys, key=lambda key: not key.endswith(f"/{_MANIFEST}")):
                    self._client.delete_object(Bucket=self._bucket, Key=key)
                print(f"removed dump {stamp}", file=sys.stderr)  # noqa: T201

    def _folders(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for key in self._keys():
            stamp = key[len(self._root) + 1 :].partition("/")[0]
            if _STAMP_PATTERN.fullmatch(stamp):
                found.setdefault(stamp, []).append(key)
        return dict(sorted(found.items()))

    def _keys(self, stamp: str = "") -> Iterator[str]:
        prefix = f"{self._root}/{stamp}/" if stamp else f"{self._root}/"
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                yield item["Key"]

    def _key(self, stamp: str, name: str) -> str:
        # A database may have any name; an object's may not.
        return f"{self._root}/{stamp}/{quote(name, safe='')}"

    def _read(self, key: str) -> bytes:
        return bytes(self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read())

    def _write(self, key: str, value: object) -> None:
        body = json.dumps(value, indent=2).encode()
        self._client.put_object(Bucket=self._bucket, Key=key, Body=body, **self._extra)


def _list(dumps: _Dumps) -> None:
    found = [dumps.manifest(stamp) for stamp in dumps.whole()]
    sys.stdout.write(json.dumps(found) + "\n")


def _files(dumps: _Dumps, stamp: str) -> None:
    for item in dumps.manifest(stamp)["files"]:
        sys.stdout.write(unquote(item["name"]) + "\n")


def _missing(dumps: _Dumps, stamp: str) -> None:
    for line in dumps.manifest(stamp).get("missing", []):
        sys.stdout.write(line + "\n")


def main() -> int:
    """Does what the arguments say; 1 and one line on standard error if it cannot be done."""
    actions: dict[str, tuple[list[str], Callable[..., object]]] = {
        "put": (["stamp", "name"], lambda dumps, stamp, name: dumps.put(stamp, name)),
        "remove": (["stamp", "name"], lambda dumps, stamp, name: dumps.remove(stamp, name)),
        "finish": (["stamp"], lambda dumps, stamp: dumps.finish(stamp)),
        "get": (["stamp", "name"], lambda dumps, stamp, name: dumps.get(stamp, name)),
        "files": (["stamp"], _files),
        "missing": (["stamp"], _missing),
        "resolve": (["stamp"], lambda dumps, stamp: sys.stdout.write(dumps.resolve(stamp) + "\n")),
        "expire": (["days"], lambda dumps, days: dumps.expire(int(days))),
        "list": ([], _list),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="action", required=True)
    for action, (arguments, _) in actions.items():
        command = commands.add_parser(action)
        for argument in arguments:
            command.add_argument(argument)
    given = vars(parser.parse_args())
    _, do = actions[given.pop("action")]
    try:
        do(_Dumps(), **given)
    except (StoreError, BotoCoreError, ClientError, boto3.exceptions.Boto3Error) as error:
        print(f"error: object store: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
