"""Every reader of the pack takes time in proportion to what it is given: no text that a program holds can hang it."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from policies.commands import started_by
from policies.containers import Container
from policies.machines import startup_reasons
from policies.references import containers_run
from policies.secret_literals import secrets_in_command, secrets_in_text
from policies.texts import UncheckedError, decoded, documents_in

READERS: dict[str, Callable[[str], Any]] = {
    "a command": lambda text: list(started_by(text, lambda _: False)),
    "what a machine starts with": lambda text: list(startup_reasons(text, lambda _: False)),
    "a container's command": lambda text: Container("a", command=["sh", "-c", text]).forbidden(),
    "a compose file": lambda text: list(containers_run({"composeFile": text})),
    "documents": documents_in,
    "an encoded text": decoded,
    "a file's secrets": lambda text: list(secrets_in_text(text)),
    "a command's secrets": lambda text: list(secrets_in_command([text])),
}
PIECES = [
    "\n", " ", " \n", "\r\n", "\\\n", "a", "A", "1", "-", "- ", "a-", "a.b", "a=", "a: b\n", "=", "'", '"', "{", "[", "<a>", "$(", "${", "://", ":a@",
    "apt-get ", "apt-get install ", "docker run ", "docker run -e ", "helm install a/b ", "--set a=b,", "kubectl apply -f http://x ", "postgres ",
    "-h postgres", "initdb ", "image: ", "image = ", "FROM ", "FROM --a ", "apiVersion: x\n", "<<EOF\n", "key: |\n  ", "&a ", "create role ",
    "password=", "a:b@", "eyJ", "eyJaaaaaaaaaa.", "sk-a-", "Basic ", "Bearer ", "curl -u ", "login a password ", "host=a ", '{"a":', ", a: ",
]  # fmt: skip
SIZE = 2_000
NOISE_SECONDS = 0.01


def taken(read: Callable[[str], Any], text: str) -> float:
    """The time of the processor that it takes, the least of three."""
    found = []
    for _ in range(3):
        start = time.process_time()
        with suppress(UncheckedError):
            read(text)
        found.append(time.process_time() - start)
        if found[-1] < NOISE_SECONDS:
            break
    return min(found)


@pytest.mark.parametrize("reader", READERS)
def test_four_times_the_text_takes_no_more_than_about_four_times_as_long(reader: str) -> None:
    read = READERS[reader]
    for piece in PIECES:
        small, large = (piece * (size // len(piece)) for size in (SIZE, 4 * SIZE))
        # In proportion would be 4, the square of it 16.
        assert taken(read, large) < 9 * max(taken(read, small), NOISE_SECONDS), piece


BOMBS = {
    "an alias inside of what it names": "a: &a [*a, *a]\n",
    "eight levels of aliases": "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)),
    "a thousand levels": "[" * 1000,
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_text_that_grows_when_it_is_read_is_refused_at_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(UncheckedError):
        documents_in(text)
    assert time.process_time() - start < 2
