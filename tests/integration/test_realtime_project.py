"""A project with Realtime, brought up by the program: its row, its login, and what clients are told."""

import psycopg
import pytest

from data_plane.clients.openbao import read_kv
from data_plane.local.servers import LOOPBACK
from data_plane.model.naming import CONNECTORS_MOUNT, SUPABASE_SECRET
from data_plane.model.realtime_cipher import unseal
from tests.conftest import NewPlane, Plane, bring_up
from tests.integration import realtime_model as model
from tests.integration.realtime_model import Permissions, join

CHAT = """\
slug: live-chat
display_name: Chat
cell: cell-1
owners: [olga]
managed_services: [postgres, auth, realtime]
realtime:
  max_concurrent_users: 77
  max_bytes_per_second: 64KiB
"""


@pytest.fixture(scope="module")
def chat(new_plane: NewPlane) -> Plane:
    return new_plane({"live-chat.yaml": CHAT})


def test_a_project_gets_its_tenant_where_realtime_runs(chat: Plane) -> None:
    values, _ = read_kv(chat.local_env.servers.openbao.client(), CONNECTORS_MOUNT, SUPABASE_SECRET)
    key = values["REALTIME_DB_ENC_KEY_GCM"]
    assert chat.rows("select max_concurrent_users, max_bytes_per_second from data_plane.realtime") == [(77, 65536)]

    # The platform starts to run Realtime, which brings its tables along.
    model.start(chat.local_env.servers.postgres)

    ((settings, suspended),) = chat.rows(
        "select e.settings, t.suspend from _realtime.tenants t"
        " join _realtime.extensions e on e.tenant_external_id = t.external_id where t.external_id = 'proj_live_chat'"
    )
    assert suspended is False
    login, password = (unseal(key, settings[name]) for name in ("db_user", "db_password"))
    assert login == "proj_live_chat$realtime"
    with psycopg.connect(
        host=LOOPBACK, port=chat.local_env.servers.postgres.known_port, user=login, password=password, dbname="postgres",
        autocommit=True,
    ) as session:  # fmt: skip
        assert join(session, {"role": "proj_live_chat_authenticated"}, "room") == Permissions(read=True, write=True)
    (again,) = [run for run in bring_up(chat.local_env) if run.stack == "local-cell-1"]
    assert (again.created, again.updated) == (0, 0)

    file = chat.local_env.root / "stacks" / "local" / "projects" / "live-chat.yaml"
    file.write_text(CHAT + "lifecycle: detached\n", encoding="utf-8")
    bring_up(chat.local_env)
    assert chat.rows("select suspend from _realtime.tenants where external_id = 'proj_live_chat'") == [(True,)]
    assert chat.rows("select rolcanlogin from pg_roles where rolname = 'proj_live_chat$realtime'") == [(False,)]
