"""What a command under ``run`` gets of its caller's environment."""

import os

import pytest

from data_plane.connector import environment
from data_plane.connector.environment import command_environment, isolate

WITHHELD = [
    *("VAULT_TOKEN", "BAO_TOKEN", "VAULT_WRAP_TOKEN", "BAO_DEV_ROOT_TOKEN_ID", "VAULT_TOKEN_FILE"),
    *("VAULT_CLIENT_KEY", "BAO_CLIENT_KEY", "VAULT_ROLE_ID", "VAULT_SECRET_ID", "BAO_PASSWORD", "VAULT_UNSEAL_KEY_1"),
    *("DATA_PLANE_ROLE_ID", "DATA_PLANE_SECRET_ID", "DATA_PLANE_TOKEN"),
    *("DATA_PLANE_ROLE_ID_FILE", "DATA_PLANE_SECRET_ID_FILE", "DATA_PLANE_TOKEN_FILE"),
    *("PULUMI_ACCESS_TOKEN", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"),
    *("PGPASSWORD", "PGPASSFILE", "PGSERVICE", "PGSERVICEFILE", "PGUSER", "PGHOST", "PGOPTIONS"),
]
HANDED_ON = [
    *("VAULT_ADDR", "BAO_ADDR", "VAULT_NAMESPACE", "VAULT_CACERT", "VAULT_CAPATH", "VAULT_SKIP_VERIFY", "BAO_FORMAT"),
    *("DATA_PLANE_HOME", "DATA_PLANE_BINDING", "DATA_PLANE_ENGINE", "PULUMI_BACKEND_URL", "PULUMI_HOME"),
    *(
        "PGAPPNAME",
        "PATH",
        "HOME",
        "LANG",
        "TOKEN",
        "SECRET",
        "MY_VAULT_TOKEN",
        "VAULTED_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
    ),
    *("PYDANTIC_DISABLE_PLUGINS", "PYTHONPATH", "PYTHONSTARTUP", "KUBECONFIG", "GITHUB_TOKEN", "NODE_OPTIONS"),
]


@pytest.fixture(autouse=True)
def _callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_taken", {})
    monkeypatch.setattr(os, "environ", {name: f"the caller's {name}" for name in (*WITHHELD, *HANDED_ON)})


def given(lease: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in command_environment(lease).items() if name != "PYTEST_CURRENT_TEST"}


def test_a_command_gets_the_lease_and_what_is_none_of_the_platforms() -> None:
    lease = {"DATABASE_URL": "of the lease", "PGSERVICE": "of the lease", "SUPABASE_API_TOKEN": None}
    os.environ["SUPABASE_API_TOKEN"] = "of another lease"
    expected = {name: f"the caller's {name}" for name in HANDED_ON}
    assert given(lease) == {**expected, "DATABASE_URL": "of the lease", "PGSERVICE": "of the lease"}


def test_our_own_programs_are_told_nothing_of_what_to_import_and_the_command_all_of_it() -> None:
    os.environ["PATH"] = os.pathsep.join(["", ".", "bin", "/usr/bin", "../x", "/bin"])
    before = dict(os.environ)
    isolate()
    assert not [name for name in os.environ if name.startswith("PYTHON")]
    assert os.environ["PATH"] == os.pathsep.join(["/usr/bin", "/bin"])
    assert given({}) == {name: before[name] for name in HANDED_ON}


def test_without_a_path_there_is_none() -> None:
    del os.environ["PATH"]
    isolate()
    assert "PATH" not in command_environment({})


def test_pydantic_looks_for_no_plugin_here_and_as_before_in_the_command() -> None:
    isolate()
    assert os.environ["PYDANTIC_DISABLE_PLUGINS"] == "__all__"
    assert given({})["PYDANTIC_DISABLE_PLUGINS"] == "the caller's PYDANTIC_DISABLE_PLUGINS"


def test_a_command_has_no_variable_that_its_caller_had_not() -> None:
    del os.environ["PYDANTIC_DISABLE_PLUGINS"]
    isolate()
    assert "PYDANTIC_DISABLE_PLUGINS" not in given({})
