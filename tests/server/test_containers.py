"""A session is opened for one particular, locked-down container, or not at all."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hand_built import is_problem, make_request, opening
from live import LiveServer

from auditkit.evidence.keys import SigningKey
from schemas import ContainerRun, ImageSignature
from tests.evidence import contained

ORDER_ID = "closed"


@pytest.fixture(scope="module")
def closed_order(live_server: LiveServer) -> str:
    """An order for one image, which allows no run outside a container."""
    return live_server.add_order(ORDER_ID, images=(contained.IMAGE,), allow_without_container=False)


def ask(
    server: LiveServer, digest: str, container: ContainerRun | None, order_id: str = ORDER_ID
) -> requests.Response:
    request = make_request(digest, SigningKey.generate(), container=container)
    return server.client("developer").post("/sessions", json=opening(order_id, request))


def described(**changes: Any) -> ContainerRun:
    return contained.contained_run(described=changes)


def seen(**changes: Any) -> ContainerRun:
    return contained.contained_run(seen=changes)


def mounts_and(destination: str, *, read_only: bool) -> dict[str, Any]:
    added = contained.mount(destination, read_only=read_only)
    return {"mounts": (contained.RELAY, contained.OUTPUT, added)}


def test_the_ordered_image_in_a_locked_down_container_is_let_in(
    live_server: LiveServer, closed_order: str
) -> None:
    response = ask(live_server, closed_order, contained.contained_run())
    assert response.status_code == 201, response.text


def test_data_may_be_mounted_read_only(live_server: LiveServer, closed_order: str) -> None:
    run = described(**mounts_and("/data/pool", read_only=True))
    assert ask(live_server, closed_order, run).status_code == 201


def test_an_order_for_containers_is_for_containers_only(
    live_server: LiveServer, closed_order: str
) -> None:
    assert is_problem(ask(live_server, closed_order, None), 422, "ContainerRequiredError")


def forbidden_runs() -> Iterator[Any]:
    for name, run, error in (
        ("writable root", described(read_only_root=False), "WritableRootError"),
        ("added capability", described(capabilities_added=("SYS_ADMIN",)), "CapabilityError"),
        ("capability inside", seen(effective_capabilities="0" * 15 + "1"), "CapabilityError"),
        ("host network", described(network_mode="host"), "NetworkError"),
        ("network inside", seen(network_interfaces=("lo", "eth0")), "NetworkError"),
        ("extra mount", described(**mounts_and("/etc", read_only=True)), "MountError"),
        ("writable data", described(**mounts_and("/data/pool", read_only=False)), "MountError"),
        ("entry point", described(entrypoint=("sh",)), "EntryPointError"),
        ("command", described(command=("--steal",)), "EntryPointError"),
        (
            "environment",
            described(environment=("PYTHONPATH=/output",)),
            "EnvironmentVariablesError",
        ),
        ("privileged", described(privileged=True), "PrivilegedError"),
        ("another image runs", described(image_id="77" * 32), "ContainerImageError"),
        ("no limits", described(memory_bytes=0), "ResourceLimitError"),
        ("swapped container", seen(hostname="0123456789ab"), "SwappedContainerError"),
        (
            "configuration of another image",
            contained.contained_run().model_copy(
                update={"image_config": contained.OTHER_CONFIG_TEXT}
            ),
            "ImageConfigMismatchError",
        ),
    ):
        yield pytest.param(run, error, id=name)


@pytest.mark.parametrize(("run", "error"), list(forbidden_runs()))
def test_a_container_that_is_not_locked_down_is_refused(
    live_server: LiveServer, closed_order: str, run: ContainerRun, error: str
) -> None:
    assert is_problem(ask(live_server, closed_order, run), 422, error)


def test_an_image_that_nobody_allowed_is_refused(
    live_server: LiveServer, closed_order: str
) -> None:
    response = ask(
        live_server, closed_order, contained.contained_run(config=contained.OTHER_CONFIG_TEXT)
    )
    assert is_problem(response, 422, "ImageNotAllowedError")


def test_an_image_signed_by_a_listed_key_is_let_in_and_by_another_refused(
    live_server: LiveServer,
) -> None:
    trusted, stranger = contained.image_key("trusted"), contained.image_key("stranger")
    digest = live_server.add_order(
        "signed-images",
        images=(),
        image_keys=(contained.pem(trusted),),
        allow_without_container=False,
    )

    def ask_with(signature: ImageSignature | None) -> requests.Response:
        run = contained.contained_run(signature=signature)
        return ask(live_server, digest, run, "signed-images")

    assert ask_with(contained.signed_image(trusted)).status_code == 201
    refused = ask_with(contained.signed_image(stranger))
    assert is_problem(refused, 422, "ImageSignerError")
    other_image = contained.signed_image(
        trusted, contained.manifest_text(contained.OTHER_CONFIG_TEXT)
    )
    assert is_problem(ask_with(other_image), 422, "SignedConfigError")
    assert is_problem(ask_with(None), 422, "ImageNotAllowedError")
