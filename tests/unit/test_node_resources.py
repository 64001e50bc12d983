"""What the stack's Pods ask of their nodes: priority, disk, and probes that tell slow from dead."""

from collections.abc import Iterator
from typing import Any

import pytest

from data_plane.model.catalog import Service, bytes_of
from data_plane.model.cluster_names import service_name
from tests.support.cluster_program import (
    CLUSTER,
    EVERYTHING,
    VARIANTS,
    PodTemplate,
    at,
    declared,
    merged,
    pod_templates,
    variant,
)
from tests.support.declared import Program

PRIORITY_CLASS = "kubernetes:scheduling.k8s.io/v1:PriorityClass"
STORAGE = "ephemeral-storage"
every_variant = pytest.mark.parametrize("name", VARIANTS)


def classes(program: Program) -> dict[str, dict[str, Any]]:
    return {item.inputs["metadata"]["name"]: item.inputs for item in program.all(PRIORITY_CLASS)}


def template_of(program: Program, service: Service) -> PodTemplate:
    (found,) = [item for item in pod_templates(program) if item.name == service_name(service)]
    return found


@every_variant
def test_every_pod_has_a_priority_and_the_databases_is_above_the_rest(name: str) -> None:
    program = variant(name)
    made = classes(program)
    for template in pod_templates(program):
        expected = "supabase-database" if template.kind == "StatefulSet" else "supabase-services"
        assert template.spec["priorityClassName"] == expected, template.name
        assert expected in made
    for cluster in program.all(CLUSTER):
        assert cluster.inputs["spec"]["priorityClassName"] == "supabase-database"
        assert "supabase-database" in made
    values = [made[key]["value"] for key in ("supabase-database", "supabase-services") if key in made]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(made)
    assert all(0 < value < 1_000_000_000 for value in values), "above Pods without a class, below the system's"


def test_only_the_database_takes_the_room_of_others_and_no_class_is_for_the_whole_cluster() -> None:
    made = classes(variant("as it comes"))
    assert {key: item["preemptionPolicy"] for key, item in made.items()} == {
        "supabase-database": "PreemptLowerPriority",
        "supabase-services": "Never",
    }
    assert not any(item["globalDefault"] for item in made.values())


def test_two_stacks_of_a_cluster_make_classes_of_different_names() -> None:
    assert set(classes(declared({"namespace": "staging"}))) == {"staging-database", "staging-services"}


def test_a_class_that_the_cluster_has_is_used_and_not_made() -> None:
    program = declared({"priorityClasses": {"database": "platform-critical"}})
    assert set(classes(program)) == {"supabase-services"}
    assert template_of(program, Service.DATABASE).spec["priorityClassName"] == "platform-critical"
    assert template_of(program, Service.AUTH).spec["priorityClassName"] == "supabase-services"


def test_pods_wait_for_their_class_and_the_databases_outlives_the_stack() -> None:
    program = variant("as it comes")
    made = {item.inputs["metadata"]["name"]: item for item in program.all(PRIORITY_CLASS)}
    for template in pod_templates(program):
        wanted = made[template.spec["priorityClassName"]].urn
        assert wanted in set(template.resource.request.dependencies), template.name
    assert all(item.request.retainOnDelete for item in made.values())


def disk_volumes(template: PodTemplate) -> Iterator[int]:
    """The sizes of the scratch volumes that are on the node's disk."""
    for volume in template.spec["volumes"]:
        if "emptyDir" in volume and volume["emptyDir"].get("medium") != "Memory":
            yield bytes_of(volume["emptyDir"]["sizeLimit"])


@every_variant
def test_every_container_asks_for_disk_and_may_fill_its_pods_scratch_volumes(name: str) -> None:
    for template in pod_templates(variant(name)):
        for container in template.containers:
            amounts = container["resources"]
            requested, limit = (bytes_of(amounts[kind][STORAGE]) for kind in ("requests", "limits"))
            assert 0 < requested <= limit, (template.name, container["name"])
        # Containers that start before the others and stay count with them; those that end count alone.
        stay = [item for item in template.containers if item.get("restartPolicy") == "Always"]
        together = [*template.spec["containers"], *stay]
        allowed = sum(bytes_of(item["resources"]["limits"][STORAGE]) for item in together)
        assert sum(disk_volumes(template)) < allowed, f"{template.name} would be evicted for using what it is given"


def test_cloud_native_pgs_instances_ask_for_disk() -> None:
    (cluster,) = variant("CloudNativePG").all(CLUSTER)
    assert {kind: STORAGE in amounts for kind, amounts in cluster.inputs["spec"]["resources"].items()} == {
        "requests": True,
        "limits": True,
    }


def test_a_stack_changes_the_disk_of_one_service() -> None:
    amounts = {"requests": {"cpu": "1", "memory": "1Gi", STORAGE: "3Gi"}, "limits": {"memory": "1Gi", STORAGE: "4Gi"}}
    (container,) = template_of(declared(at("resources.auth", amounts)), Service.AUTH).spec["containers"]
    assert container["resources"] == amounts


def test_logflare_is_not_ready_while_it_seeds_and_is_not_restarted_for_it() -> None:
    (container,) = template_of(variant("everything"), Service.ANALYTICS).spec["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    for probe in ("livenessProbe", "startupProbe"):
        # `/health` answers 503 until Supabase's sources are there.
        assert container[probe]["tcpSocket"] == {"port": "http"}, probe
        assert "httpGet" not in container[probe]


def test_a_stack_pins_another_image_for_one_service_and_for_those_that_borrow_it() -> None:
    digest = f"sha256:{'ab' * 32}"
    image = {"repository": "supabase/postgres", "tag": "17.99.1.001", "digest": digest}
    program = declared(merged(EVERYTHING, at("images.database", image)))
    pinned = f"supabase/postgres:17.99.1.001@{digest}"
    for service in (Service.DATABASE, Service.GUARD, Service.RELAY, Service.JWKS):
        template = template_of(program, service)
        assert {item["image"] for item in template.spec["containers"]} == {pinned}, service
    before = template_of(variant("everything"), Service.AUTH).spec["containers"][0]["image"]
    assert template_of(program, Service.AUTH).spec["containers"][0]["image"] == before


def test_a_stack_pins_the_image_of_a_service_that_otherwise_borrows_one() -> None:
    program = declared(at("images.guard", {"repository": "example/psql", "tag": "18.1"}))
    assert template_of(program, Service.GUARD).spec["containers"][0]["image"] == "example/psql:18.1"
    assert template_of(program, Service.RELAY).spec["containers"][0]["image"].startswith("supabase/postgres:")
