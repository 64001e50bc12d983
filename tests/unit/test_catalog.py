"""The images and amounts beside the stacks: what is wrong in them is said with file, line and field."""

import re
from pathlib import Path

import pytest

from data_plane.model.catalog import Image, ResourceAmounts, Resources, Service, load_catalog
from data_plane.model.problems import ConfigurationError
from data_plane.state_dir import CHECKOUT

IMAGES = CHECKOUT / "stacks" / "images.yaml"
RESOURCES = CHECKOUT / "stacks" / "resources.yaml"
REST_IMAGE = "  rest: {repository: postgrest/postgrest, tag: v14.17, source: docker-compose.yml}"
REST_AMOUNTS = (
    "  rest: {requests: {cpu: 25m, memory: 40Mi, ephemeral-storage: 64Mi}, "
    "limits: {memory: 256Mi, ephemeral-storage: 1Gi}}"
)
DIGEST = f"sha256:{'0123456789abcdef' * 4}"
IMAGE_KEYS = "one of: digest, repository, source, tag"


class Checkout:
    """A checkout with the committed files, to spoil them in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "stacks").mkdir()
        for path in (IMAGES, RESOURCES):
            (root / "stacks" / path.name).write_bytes(path.read_bytes())

    def put(self, file: str, text: str) -> None:
        (self.root / file).write_text(text, encoding="utf-8")

    def replace(self, file: str, line: str, by: str) -> int:
        """The number of the line that was replaced."""
        lines = (self.root / file).read_text(encoding="utf-8").splitlines()
        number = lines.index(line)
        lines[number : number + 1] = by.splitlines()
        self.put(file, "\n".join(lines) + "\n")
        return number + 1

    def problems(self) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            load_catalog(self.root)
        return [str(problem) for problem in caught.value.problems]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("  rest: {repository: postgrest/postgrest}", "images.rest.tag: found nothing; expected this field"),
        ("  rest: {tag: v14.17}", "images.rest.repository: found nothing; expected this field"),
        *(
            (
                f"  rest: {{repository: postgrest/postgrest, tag: {tag}}}",
                f"images.rest.tag: found '{tag}'; expected the tag of one version, e.g. v14.17",
            )
            for tag in ("latest", "main", "stable", "nightly", "alpine")
        ),
        (
            "  rest: {repository: postgrest/postgrest, tag: v14/17}",
            "images.rest.tag: found 'v14/17'; expected a match of ^",
        ),
        (
            "  rest: {repository: postgrest/postgrest, tag: 14.17}",
            "images.rest.tag: found 14.17; expected text; put a number",
        ),
        (
            "  rest: {repository: Postgrest, tag: v14.17}",
            "images.rest.repository: found 'Postgrest'; expected a match of ^",
        ),
        *(
            (
                f"  rest: {{repository: postgrest/postgrest, tag: v14.17, digest: '{digest}'}}",
                f"images.rest.digest: found '{digest}'; expected a match of ^sha256:",
            )
            for digest in ("sha256:abc", "md5:0123", "0" * 64)
        ),
        (
            "  rest: {repository: postgrest/postgrest, tag: v14.17, version: 1}",
            f"images.rest.version: found an unknown key; expected {IMAGE_KEYS}",
        ),
        (f"{REST_IMAGE}\n{REST_IMAGE}", "rest: found it a second time; expected each key once"),
        (
            "  postgrest: {repository: postgrest/postgrest, tag: v14.17}",
            "images.postgrest: found 'postgrest'; expected one of: database, pooler",
        ),
        ("  rest: postgrest/postgrest:v14.17", "images.rest: found 'postgrest/postgrest:v14.17'; expected a mapping"),
    ],
)
def test_a_wrong_image_is_one_problem_with_its_line_and_field(checkout: Checkout, by: str, expected: str) -> None:
    line = checkout.replace("stacks/images.yaml", REST_IMAGE, by) + by.count("\n")
    (problem,) = checkout.problems()
    assert problem.startswith(f"stacks/images.yaml:{line}: {expected}")


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        *(
            (
                f"  rest: {{requests: {{cpu: '{wrong}', memory: 256Mi}}}}",
                f"resources.rest.requests.cpu: found '{wrong}'; expected a match of ^",
            )
            for wrong in ("much", "-1", "1.m", "250 m", "1KB", "")
        ),
        (
            "  rest: {requests: {cpu: 250m}, limits: {memory: 1GiB}}",
            "resources.rest.limits.memory: found '1GiB'; expected a match of ^",
        ),
        (
            "  rest: {requests: {gpu: '1'}}",
            "resources.rest.requests.gpu: found an unknown key; expected one of: cpu, ephemeral-storage, memory",
        ),
        (
            "  rest: {requests: {cpu: 250m}, limit: {memory: 1Gi}}",
            "resources.rest.limit: found an unknown key; expected one of: limits, requests",
        ),
        ("  rest: {limits: {memory: 1Gi}}", "resources.rest.requests: found nothing; expected this field"),
        (f"{REST_AMOUNTS}\n{REST_AMOUNTS}", "rest: found it a second time; expected each key once"),
        ("  best: {requests: {cpu: 250m}}", "resources.best: found 'best'; expected one of: database"),
    ],
)
def test_a_wrong_amount_is_one_problem_with_its_line_and_field(checkout: Checkout, by: str, expected: str) -> None:
    line = checkout.replace("stacks/resources.yaml", REST_AMOUNTS, by) + by.count("\n")
    (problem,) = checkout.problems()
    assert problem.startswith(f"stacks/resources.yaml:{line}: {expected}")


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        (
            "stacks/images.yaml",
            REST_IMAGE,
            "stacks/images.yaml: images.rest: found nothing; expected {repository: …, tag: …}",
        ),
        (
            "stacks/resources.yaml",
            REST_AMOUNTS,
            "stacks/resources.yaml: resources.rest: found nothing; expected {requests: {…}}",
        ),
    ],
)
def test_a_service_that_is_left_out_is_one_problem(checkout: Checkout, file: str, line: str, expected: str) -> None:
    checkout.replace(file, line, "")
    assert checkout.problems() == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "stacks/images.yaml:1: document: found an empty file; expected a mapping that starts with `images:`"),
        (
            "- rest\n",
            "stacks/images.yaml:1: document: found [rest]; expected a mapping that starts with `images:`",
        ),
        ("images: {rest: [", "stacks/images.yaml:1: YAML: found "),
        ("images: {}\nimages: {}\n", "stacks/images.yaml:2: images: found it a second time; expected each key once"),
        ("pictures: {}\n", "stacks/images.yaml:1: images: found nothing; expected this field"),
    ],
)
def test_a_file_that_is_no_catalog_says_what_it_should_be(checkout: Checkout, text: str, expected: str) -> None:
    checkout.put("stacks/images.yaml", text)
    assert checkout.problems()[0].startswith(expected)


@pytest.mark.parametrize("name", ["images", "resources"])
def test_an_unknown_key_beside_the_services_lists_the_one_that_is_known(checkout: Checkout, name: str) -> None:
    file = f"stacks/{name}.yaml"
    text = (checkout.root / file).read_text(encoding="utf-8")
    checkout.put(file, f"{text}pictures: {{}}\n")
    line = len(text.splitlines()) + 1
    assert checkout.problems() == [f"{file}:{line}: pictures: found an unknown key; expected one of: {name}"]


def test_a_file_that_is_not_there_is_named(checkout: Checkout) -> None:
    (checkout.root / "stacks" / "resources.yaml").unlink()
    assert checkout.problems() == [
        "stacks/resources.yaml: file: found No such file or directory; expected a readable file"
    ]


@pytest.mark.parametrize("name", ["images", "resources"])
def test_a_file_that_is_a_link_is_refused(checkout: Checkout, name: str) -> None:
    path = checkout.root / "stacks" / f"{name}.yaml"
    path.rename(checkout.root / "elsewhere.yaml")
    path.symlink_to("../elsewhere.yaml")
    assert checkout.problems() == [
        f"stacks/{name}.yaml: file: found a symbolic link; expected the file or folder itself"
    ]


def test_the_problems_of_both_files_come_at_once(checkout: Checkout) -> None:
    image = checkout.replace("stacks/images.yaml", REST_IMAGE, REST_IMAGE.replace("v14.17", "latest"))
    amounts = checkout.replace("stacks/resources.yaml", REST_AMOUNTS, REST_AMOUNTS.replace("25m", "much"))
    places = [problem.partition(": ")[0] for problem in checkout.problems()]
    assert places == [f"stacks/images.yaml:{image}", f"stacks/resources.yaml:{amounts}"]


@pytest.mark.parametrize(
    ("digest", "registry", "expected"),
    [
        (None, None, "supabase/gotrue:v2.196.0"),
        (None, "registry.example.com:5000/mirror", "registry.example.com:5000/mirror/supabase/gotrue:v2.196.0"),
        (DIGEST, None, f"supabase/gotrue:v2.196.0@{DIGEST}"),
        (DIGEST, "registry.example.com", f"registry.example.com/supabase/gotrue:v2.196.0@{DIGEST}"),
    ],
)
def test_a_reference_has_the_mirror_in_front_and_the_digest_behind(
    digest: str | None, registry: str | None, expected: str
) -> None:
    assert Image(repository="supabase/gotrue", tag="v2.196.0", digest=digest).reference(registry) == expected


def test_a_mirror_and_a_digest_reach_the_services(checkout: Checkout) -> None:
    pinned = f"  rest: {{repository: postgrest/postgrest, tag: v14.17, digest: '{DIGEST}'}}"
    checkout.replace("stacks/images.yaml", REST_IMAGE, pinned)
    catalog = load_catalog(checkout.root, registry="mirror.example.com")
    assert catalog.image(Service.REST) == f"mirror.example.com/postgrest/postgrest:v14.17@{DIGEST}"
    assert all(catalog.image(service).startswith("mirror.example.com/") for service in Service)


def test_what_a_stack_says_replaces_the_amounts_of_that_service_alone() -> None:
    plain = load_catalog(CHECKOUT)
    wanted = Resources(requests=ResourceAmounts(cpu="7"), limits=ResourceAmounts(memory="9Gi"))
    catalog = load_catalog(CHECKOUT, overrides={Service.REST: wanted})
    for service in Service:
        assert catalog.resources(service) == (wanted if service is Service.REST else plain.resources(service))


def test_the_committed_images_are_complete_and_each_is_of_one_version() -> None:
    catalog = load_catalog(CHECKOUT)
    for service in Service:
        name, _, tag = catalog.image(service).partition("@")[0].rpartition(":")
        assert name, service
        assert tag == catalog.version(service)
        assert re.search(r"\d+\.\d+", tag), f"{service}: {tag} names no version"


def test_the_committed_amounts_bound_every_services_memory() -> None:
    catalog = load_catalog(CHECKOUT)
    for service in Service:
        amounts = catalog.resources(service)
        assert amounts.requests.cpu, service
        assert amounts.requests.memory, service
        assert amounts.limits.memory, service
