"""A container passes when it is locked down; each single hole is found, and named."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.evidence import containment
from auditkit.evidence.containment import (
    check_container,
    check_description,
    check_inside,
    check_query_description,
)
from tests.evidence.contained import (
    CONFIG_TEXT,
    HOLES_DESCRIBED,
    HOLES_SEEN,
    LAYERS,
    MOUNTS,
    config_text,
    contained_run,
    description,
    identity,
    inside,
    mount,
)

RELAY, OUTPUT, POOL, TEST, SCRATCH = MOUNTS
FOLDED = CONFIG_TEXT.replace('"Env"', '"entrypoint": ["sh"], "Env"')
REPEATED = CONFIG_TEXT.replace('"Env"', '"Entrypoint": ["sh"], "Env"')

Changes = dict[str, Any]

CONFIGS: dict[str, str] = {
    "no JSON": "{",
    "a list": "[]",
    "no layers": json.dumps({"config": {}}),
    "layers of another kind": config_text(rootfs={"type": "other", "diff_ids": []}),
    "one layer less": config_text(
        rootfs={"type": "layers", "diff_ids": [f"sha256:{layer}" for layer in LAYERS[:2]]}
    ),
    "layers in another order": config_text(
        rootfs={"type": "layers", "diff_ids": [f"sha256:{layer}" for layer in reversed(LAYERS)]}
    ),
    "an entry point for readers that fold case": FOLDED,
    "two entry points": REPEATED,
    "an entry point that is no list": config_text({"Entrypoint": "sh -c"}),
    "nesting without end": '{"config":' + "[" * 100_000,
}


def test_a_locked_down_container_passes() -> None:
    check_container(contained_run())


@pytest.mark.parametrize(
    "changes",
    [
        {"image_id": identity().manifest_digest},
        {"gpus": ("all",)},
        {"rootless": True, "user": "0:0"},
        {"security_options": ("no-new-privileges:true", "seccomp=builtin")},
        {"security_options": ("no-new-privileges", "label=level:s0:c100,c200", "apparmor=strict")},
        {"mounts": (OUTPUT, RELAY)},
        {"working_directory": ""},
        {"ipc_mode": "none", "restart_policy": "", "networks": ()},
    ],
    ids=[
        "named by its manifest, as in the containerd store",
        "with GPUs",
        "root without any right on the host",
        "with a seccomp profile of its own",
        "with other profiles",
        "with the data in the image, and no scratch",
        "in the root folder, unsaid",
        "with even less",
    ],
)
def test_variants_that_are_as_closed_pass(changes: Changes) -> None:
    check_description(identity(), CONFIG_TEXT, description(**changes))


@pytest.mark.parametrize("name", HOLES_DESCRIBED)
def test_each_hole_in_the_description_is_found(name: str) -> None:
    changes, error = HOLES_DESCRIBED[name]
    with pytest.raises(error) as caught:
        check_container(contained_run(described=changes))
    assert type(caught.value) is error
    assert len(str(caught.value)) > 30


@pytest.mark.parametrize("name", HOLES_SEEN)
def test_each_hole_seen_inside_is_found(name: str) -> None:
    changes, error = HOLES_SEEN[name]
    with pytest.raises(error) as caught:
        check_container(contained_run(seen=changes))
    assert type(caught.value) is error
    assert len(str(caught.value)) > 30


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_must_be_read_in_one_way(name: str) -> None:
    run = contained_run(config=CONFIGS[name])
    with pytest.raises(containment.ImageConfigMismatchError):
        check_container(run)


def test_another_configuration_than_identified_is_refused() -> None:
    with pytest.raises(containment.ImageConfigMismatchError, match="hashes to"):
        check_description(identity(), config_text({"Entrypoint": ["sh"]}), description())


def test_an_image_that_sets_nothing_is_compared_with_nothing() -> None:
    config = config_text(config=None)
    bare = {"entrypoint": (), "environment": (), "working_directory": "/"}
    check_container(contained_run(config=config, described=bare))
    with pytest.raises(containment.EntryPointError):
        check_container(contained_run(config=config, described=bare | {"entrypoint": ("sh",)}))


def test_root_inside_a_rootless_engine_is_the_user_outside() -> None:
    check_container(
        contained_run(described={"rootless": True, "user": "0:0"}, seen={"uid": 0, "gid": 0})
    )


def test_every_error_is_in_a_table() -> None:
    errors = {error for _, error in (*HOLES_DESCRIBED.values(), *HOLES_SEEN.values())}
    everything = set(containment.ContainmentError.__subclasses__())
    assert everything == errors | {containment.ImageConfigMismatchError}


def test_foreign_text_does_not_flood_a_message() -> None:
    flood = tuple("x" * 10_000 for _ in range(100))
    with pytest.raises(containment.EntryPointError) as caught:
        check_description(identity(), CONFIG_TEXT, description(command=flood))
    assert len(str(caught.value)) < 1_000


@given(st.text(min_size=1, max_size=30))
def test_no_other_place_may_be_mounted_or_written(place: str) -> None:
    known = {RELAY.destination, OUTPUT.destination, POOL.destination, TEST.destination}
    if place not in known:
        with pytest.raises(containment.MountError):
            check_description(
                identity(), CONFIG_TEXT, description(mounts=(*MOUNTS[:2], mount(place)))
            )
    writable = {OUTPUT.destination, SCRATCH.destination} | containment.ENGINE_MOUNTS
    if place not in writable and not place.startswith("/proc/"):
        with pytest.raises(containment.MountError):
            check_inside(description(), inside(writable_mounts=(place,)))


ANSWERING = (RELAY, SCRATCH)


def test_a_container_that_answers_a_question_has_its_task_and_no_place_to_write() -> None:
    check_query_description(identity(), CONFIG_TEXT, description(mounts=ANSWERING))


@pytest.mark.parametrize(
    "mounts", [(), (SCRATCH,), (*ANSWERING, OUTPUT), (*ANSWERING, POOL), MOUNTS]
)
def test_any_other_folder_of_the_host_is_one_too_many(mounts: tuple[Any, ...]) -> None:
    with pytest.raises(containment.MountError):
        check_query_description(identity(), CONFIG_TEXT, description(mounts=mounts))


@pytest.mark.parametrize("name", HOLES_DESCRIBED)
def test_every_other_hole_is_found_in_it_as_well(name: str) -> None:
    changes, error = HOLES_DESCRIBED[name]
    with pytest.raises(error):
        check_query_description(
            identity(), CONFIG_TEXT, description(**{"mounts": ANSWERING, **changes})
        )
