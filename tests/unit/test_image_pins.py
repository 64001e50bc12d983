"""``dataplane images pin``: digests from a registry that speaks the OCI distribution protocol, into images.yaml."""

import base64
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_plane.cli import images as images_command
from data_plane.clients import registry as client
from data_plane.clients.registry import ImageReference, RegistryError, digest_of, registry_session
from data_plane.connector.image_pins import ImagePinError, apply_pins, find_pins
from data_plane.model.catalog import IMAGES_FILE, Image, Service, load_images
from data_plane.state_dir import CHECKOUT
from tests.support.fake_registry import DOCKER_LIST, INDEX, MANIFEST, OLD_MANIFEST, Registry, running_registry

COMMITTED = (CHECKOUT / IMAGES_FILE).read_text(encoding="utf-8")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Registry]:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setattr(client, "_RETRY", client._RETRY.new(backoff_factor=0))
    with running_registry() as running:
        yield running


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with the committed file."""
    (tmp_path / "stacks").mkdir()
    (tmp_path / IMAGES_FILE).write_text(COMMITTED, encoding="utf-8")
    return tmp_path


def images_of(root: Path) -> dict[Service, Image]:
    found = load_images(root, [])
    assert found is not None
    return found


def with_all(registry: Registry, root: Path) -> dict[Service, str]:
    """Lets the registry have every image; the digests by service."""
    return {
        service: registry.put(ImageReference.parse(image.reference(registry.address)).repository, image.tag)
        for service, image in images_of(root).items()
    }


def ask(registry: Registry, name: str) -> str:
    with registry_session() as session:
        return digest_of(ImageReference.parse(f"{registry.address}/{name}"), session)


def pin(root: Path, registry: Registry) -> None:
    found = find_pins(root, registry=registry.address, say=lambda _name: None)
    apply_pins(root, {item.service: item for item in found if item.differs})


# The registry's answers


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag"),
    [
        ("busybox:1.37.0", "registry-1.docker.io", "library/busybox", "1.37.0"),
        ("supabase/gotrue:v2.196.0", "registry-1.docker.io", "supabase/gotrue", "v2.196.0"),
        ("docker.io/kong/kong:3.9.3", "registry-1.docker.io", "kong/kong", "3.9.3"),
        (f"ghcr.io/a/b:1@sha256:{'0' * 64}", "ghcr.io", "a/b", "1"),
        ("mirror.example.com:5000/hub/kong/kong:3.9.3", "mirror.example.com:5000", "hub/kong/kong", "3.9.3"),
        ("localhost/app:1", "localhost", "app", "1"),
    ],
)
def test_a_reference_leads_to_the_registry_that_a_runtime_would_ask(
    text: str, host: str, repository: str, tag: str
) -> None:
    assert ImageReference.parse(text) == ImageReference(host, repository, tag)


@pytest.mark.parametrize(
    ("host", "scheme"),
    [("127.0.0.1:5000", "http"), ("localhost:5000", "http"), ("[::1]:5000", "http"), ("mirror.example.com", "https")],
)
def test_only_a_registry_on_this_machine_is_asked_without_tls(host: str, scheme: str) -> None:
    assert ImageReference(host, "a", "1").url == f"{scheme}://{host}/v2/a/manifests/1"


@pytest.mark.parametrize("kind", [INDEX, DOCKER_LIST, MANIFEST])
def test_a_digest_is_asked_for_with_a_token_and_without_the_manifest(registry: Registry, kind: str) -> None:
    digest = registry.put("supabase/gotrue", "v1.2", kind)
    assert ask(registry, "supabase/gotrue:v1.2") == digest
    methods = [method for method, path in registry.requests if "/manifests/" in path]
    assert methods == ["HEAD", "HEAD"], "refused, then answered; a HEAD counts for no limit"


def test_a_registry_without_tokens_is_asked_once(registry: Registry) -> None:
    registry.tokens = False
    digest = registry.put("a/b", "1.0")
    assert ask(registry, "a/b:1.0") == digest
    assert len(registry.requests) == 1


def test_a_digest_that_is_in_no_header_is_the_checksum_of_the_manifest(registry: Registry) -> None:
    registry.digest_header = False
    digest = registry.put("a/b", "1.0")
    assert ask(registry, "a/b:1.0") == digest


def test_a_registry_that_is_busy_is_asked_again(registry: Registry) -> None:
    registry.busy = 3
    digest = registry.put("a/b", "1.0")
    assert ask(registry, "a/b:1.0") == digest


def test_a_private_registry_gets_the_login_of_netrc(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    registry.login = "Basic " + base64.b64encode(b"puller:of-the-test").decode()
    digest = registry.put("a/b", "1.0")
    with pytest.raises(RegistryError, match=r"gives no token \(401\).*~/\.netrc"):
        ask(registry, "a/b:1.0")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login puller password of-the-test\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert ask(registry, "a/b:1.0") == digest


def refused(registry: Registry) -> str:
    with pytest.raises(RegistryError) as caught:
        ask(registry, "a/b:1.0")
    assert registry.address.partition(":")[0] in str(caught.value)
    return str(caught.value)


def test_what_a_registry_refuses_is_said_in_one_line(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "has no such image: see whether repository and tag are right" in refused(registry)
    registry.put("a/b", "1.0", OLD_MANIFEST)
    assert "which is no image's manifest" in refused(registry)
    registry.put("a/b", "1.0")
    monkeypatch.setattr(client, "_RETRY", client._RETRY.new(total=1))
    registry.busy = 9
    assert "takes no more requests for now: try again later" in refused(registry)


def test_a_registry_that_cannot_be_reached_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_RETRY", client._RETRY.new(total=0))
    with running_registry() as stopped:
        pass
    with pytest.raises(RegistryError, match="no connection; see whether this machine"):
        ask(stopped, "a/b:1.0")


# The file


def test_every_image_gets_its_digest_and_nothing_else_changes(registry: Registry, root: Path) -> None:
    expected = with_all(registry, root)
    before = stat.S_IMODE((root / IMAGES_FILE).stat().st_mode)
    pin(root, registry)
    assert {service: image.digest for service, image in images_of(root).items()} == expected
    text = (root / IMAGES_FILE).read_text(encoding="utf-8")
    assert re.sub(r",? *(\n +)?digest: sha256:[0-9a-f]{64}", "", text) == re.sub(
        r",? *(\n +)?digest: sha256:[0-9a-f]{64}", "", COMMITTED
    )
    assert stat.S_IMODE((root / IMAGES_FILE).stat().st_mode) == before
    assert [path.name for path in (root / "stacks").iterdir()] == ["images.yaml"]
    registry.requests.clear()
    pin(root, registry)
    assert (root / IMAGES_FILE).read_text(encoding="utf-8") == text


def test_comments_stay_where_they_are(registry: Registry, root: Path) -> None:
    text = COMMITTED.replace(
        "  auth: {repository: supabase/gotrue, tag: v2.196.0, source: docker-compose.yml}\n",
        "  auth:\n    repository: supabase/gotrue\n    tag: v2.196.0  # why this one\n\n  # of the next\n",
    )
    assert text != COMMITTED
    (root / IMAGES_FILE).write_text(text, encoding="utf-8")
    digests = with_all(registry, root)
    pin(root, registry)
    found = (root / IMAGES_FILE).read_text(encoding="utf-8")
    assert (
        f"  auth:\n    repository: supabase/gotrue\n    digest: {digests[Service.AUTH]}\n"
        "    tag: v2.196.0  # why this one\n\n  # of the next\n  rest: {" in found
    )


def test_one_image_that_is_not_there_leaves_the_file_as_it_is_and_is_named(registry: Registry, root: Path) -> None:
    with_all(registry, root)
    del registry.manifests["kong/kong", "3.9.3"]
    line = COMMITTED.splitlines().index(next(x for x in COMMITTED.splitlines() if x.startswith("  gateway:"))) + 1
    with pytest.raises(ImagePinError) as caught:
        pin(root, registry)
    head, problem = str(caught.value).splitlines()
    assert head == "nothing was written, because of:"
    assert problem.startswith(f"  stacks/images.yaml:{line}: images.gateway: kong/kong:3.9.3: 127.0.0.1")
    assert "has no such image" in problem
    assert (root / IMAGES_FILE).read_text(encoding="utf-8") == COMMITTED


def test_a_tag_that_was_changed_meanwhile_is_not_given_the_digest_of_another(registry: Registry, root: Path) -> None:
    with_all(registry, root)
    found = {item.service: item for item in find_pins(root, registry=registry.address, say=lambda _name: None)}
    text = COMMITTED.replace("tag: 3.9.3", "tag: 3.9.4")
    (root / IMAGES_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(ImagePinError, match=r"images\.gateway was changed meanwhile"):
        apply_pins(root, found)
    assert (root / IMAGES_FILE).read_text(encoding="utf-8") == text


def test_the_command_pins_and_its_check_fails_once_a_tag_moves(
    registry: Registry, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images_command, "CHECKOUT", root)
    with_all(registry, root)
    run = CliRunner().invoke
    before = run(images_command.app, ["--check", "--registry", registry.address])
    assert before.exit_code == 1
    assert "images.rest: postgrest/postgrest:v14.17 is sha256:" in before.output
    assert "; pinned to nothing" in before.output
    assert (root / IMAGES_FILE).read_text(encoding="utf-8") == COMMITTED, "a check writes nothing"
    done = run(images_command.app, ["--registry", registry.address])
    assert (done.exit_code, "15 images in stacks/images.yaml: 15 pinned anew." in done.output) == (0, True)
    assert run(images_command.app, ["--check", "--registry", registry.address]).exit_code == 0
    moved = registry.put("postgrest/postgrest", "v14.17", text="another image under the same tag")
    after = run(images_command.app, ["--check", "--registry", registry.address])
    assert after.exit_code == 1
    assert f"postgrest/postgrest:v14.17 is {moved}; pinned to sha256:" in after.output
    assert after.output.count("; pinned to") == 1


def test_every_committed_image_says_where_its_version_is_from() -> None:
    assert [service for service, image in images_of(CHECKOUT).items() if not image.source] == []
