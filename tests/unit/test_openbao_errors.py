"""What OpenBao's errors are told as: one sentence with what to do, and nothing of a request's body."""

import pytest
from hvac.exceptions import InternalServerError, VaultDown

from data_plane.clients.openbao import explain

REFUSED = (
    "1 error occurred: * failed to verify connection: failed to connect to `user=openbao_lease_issuer "
    "database=postgres`: 127.0.0.1:5433 (127.0.0.1): dial error: dial tcp 127.0.0.1:5433: connect: connection refused"
)
PASSWORD = (
    "failed to connect to `user=openbao_lease_issuer database=postgres`: 10.0.0.5:5432 (db): failed SASL auth: "
    'FATAL: password authentication failed for user "openbao_lease_issuer" (SQLSTATE 28P01)'
)
READ_ONLY = "ERROR: cannot execute CREATE ROLE in a read-only transaction (SQLSTATE 25006)"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            REFUSED,
            (
                "OpenBao cannot reach PostgreSQL at 127.0.0.1:5433 (connection refused): it does not run there. Start it "
                "(on this machine: `dataplane local start`), then run the same command again"
            ),
        ),
        (
            REFUSED.replace("connect: connection refused", "i/o timeout"),
            (
                "OpenBao cannot reach PostgreSQL at 127.0.0.1:5433 (i/o timeout): it does not answer. See whether it runs "
                "and can be reached, then run the same command again"
            ),
        ),
        *(
            (
                REFUSED.replace("dial error: dial tcp 127.0.0.1:5433: connect: connection refused", sign),
                (
                    f"OpenBao cannot reach PostgreSQL ({sign.rpartition(': ')[2]}): the connection was cut, by a restart "
                    "or on the way; if it has stopped, start it. Then run the same command again"
                ),
            )
            for sign in (
                "failed to receive message: unexpected EOF",
                "failed to write startup message: write: broken pipe",
                "read: connection reset by peer",
            )
        ),
        *(
            (
                REFUSED.replace("connect: connection refused", sign),
                (
                    f"OpenBao cannot reach PostgreSQL at 127.0.0.1:5433 ({sign.rpartition(': ')[2]}): see whether it "
                    "runs and can be reached from there, then run the same command again"
                ),
            )
            for sign in ("connect: no route to host", "connect: network is unreachable", "context deadline exceeded")
        ),
        (
            PASSWORD,
            (
                'PostgreSQL refused OpenBao: password authentication failed for user "openbao_lease_issuer": its login '
                "has another password there; `dataplane secret reconcile` gives both the same"
            ),
        ),
        (
            READ_ONLY,
            (
                "PostgreSQL refused OpenBao: cannot execute CREATE ROLE in a read-only transaction: it takes no writes: a "
                "standby, or default_transaction_read_only is on. Name the primary or turn that off, then run the same "
                "command again"
            ),
        ),
        ("ERROR: no such tenant (SQLSTATE P0001)", "PostgreSQL refused OpenBao: no such tenant"),
    ],
)
def test_what_openbao_says_of_postgresql_is_told_in_one_sentence(message: str, told: str) -> None:
    assert explain(InternalServerError(errors=[message])) == told


def test_a_sealed_openbao_names_the_command_that_unseals_it() -> None:
    told = explain(VaultDown(errors=["Vault is sealed"]))
    assert told == (
        "Vault is sealed: unseal it (`bao operator unseal`; on this machine `dataplane local start`), then run the "
        "same command again"
    )
