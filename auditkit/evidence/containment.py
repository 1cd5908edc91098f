"""Is a container locked down? One rule, one error.

The launcher, the agent inside, the server and every verifier run this same code. It judges what the
engine reports about a started container, and what the agent sees when it looks at its own process.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from auditkit.evidence import image_documents
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.errors import EvidenceError, ImageDocumentError
from schemas import ContainerDescription, ContainerMount, ContainerRun, ImageIdentity, InsideView

RELAY_FOLDER = "/run/auditkit"
OUTPUT = "/output"
POOL = "/data/pool"
TEST = "/data/test"
SCRATCH = "/tmp"  # noqa: S108 - a place inside the container, which has it for itself

READ_ONLY_PLACES = {RELAY_FOLDER: True, OUTPUT: False, POOL: True, TEST: True}
"""Folders of the host that a container may be given, and whether it must not write to them."""

NEEDED_PLACES = (RELAY_FOLDER, OUTPUT)
"""Without these a run can neither speak to the auditor nor keep its results."""

ENGINE_MOUNTS = frozenset(
    {
        "/dev",
        "/dev/console",  # of a container with a terminal
        "/dev/mqueue",
        "/dev/pts",
        "/dev/shm",  # noqa: S108 - inside the container
        "/proc",
        "/sys/fs/cgroup",  # under cgroup v1 root's folder of controllers, each mounted read-only
    }
)
"""What an engine mounts for every container, in memory that goes away with it."""

PROCESS_FOLDER = "/proc/"
"""The engine hides parts of /proc below mounts of its own, and lets nobody else mount there."""

NO_NEW_PRIVILEGES = frozenset({"no-new-privileges", "no-new-privileges:true"})
UNCONFINED = "unconfined"
"""The AppArmor profile that is none."""

LEVEL_LABEL = "level:"
"""The one part of an SELinux label that may be chosen: some types of processes are not confined."""

BUILT_IN_SECCOMP = "seccomp=builtin"
"""The engine's own filter. Whether another one is as strict, its report does not tell."""

OWN_NAMESPACE = frozenset({"", "private"})
"""An engine's words for a namespace that the container has for itself."""

NO_IPC = "none"  # an own IPC namespace without even a /dev/shm
NO_NETWORK = "none"
LOOPBACK = "lo"
NEVER_RESTARTED = frozenset({"", "no"})
ROOT = 0
ALL_CAPABILITIES = "ALL"
NO_CAPABILITIES = "0" * 16
SECCOMP_FILTER = 2  # SECCOMP_MODE_FILTER of seccomp(2), as /proc/self/status tells it
HOSTNAME_DIGITS = 12  # of the identifier, with which an engine names a container

_USER = re.compile(r"(0|[1-9][0-9]{0,9}):(0|[1-9][0-9]{0,9})")
_OPTION = re.compile(r"([a-z-]+)[=:](.+)", re.DOTALL)
_SHOWN_CHARACTERS = 200


class ContainmentError(EvidenceError):
    """The training does not run in a locked-down container of the image that is named."""


class ImageConfigMismatchError(ContainmentError):
    """The image's configuration is not the one that its identity names."""


class ContainerImageError(ContainmentError):
    """The container runs another image."""


class EntryPointError(ContainmentError):
    """The container runs another program than its image says."""


class EnvironmentVariablesError(ContainmentError):
    """The container has other environment variables than its image says."""


class WorkingDirectoryError(ContainmentError):
    """The container starts in another folder than its image says."""


class ContainerUserError(ContainmentError):
    """The container runs as root, or as somebody else than it was started as."""


class PrivilegedError(ContainmentError):
    """The container is privileged: nothing confines it."""


class WritableRootError(ContainmentError):
    """The container can change the files of its image."""


class CapabilityError(ContainmentError):
    """The container has rights of root."""


class SecurityOptionError(ContainmentError):
    """The container may gain rights, or a profile that confines it is switched off."""


class NetworkError(ContainmentError):
    """The container has a network."""


class NamespaceError(ContainmentError):
    """The container shares a namespace with the host or with another container."""


class DeviceError(ContainmentError):
    """The container was given a device of the host."""


class MountError(ContainmentError):
    """The container has a mount that it must not have, or lacks one."""


class RestartPolicyError(ContainmentError):
    """The engine would start the container again, unseen."""


class HealthCheckError(ContainmentError):
    """The engine would run a second program in the container, again and again."""


class ExtraSettingError(ContainmentError):
    """The container has a setting that no locked-down container has."""


class ResourceLimitError(ContainmentError):
    """The container has no limit on memory, processors or processes."""


class SwappedContainerError(ContainmentError):
    """The agent runs in another container than the one that was described."""


class _Image(NamedTuple):
    """What the image is, and what its configuration says."""

    identity: ImageIdentity
    config: image_documents.ImageConfig


_Rule = Callable[[_Image, ContainerDescription], None]


def check_description(
    image: ImageIdentity, image_config: str, description: ContainerDescription
) -> None:
    """Check a started container, as the engine describes it, against every rule.

    Args:
        image: recomputed from what the engine has on disk.
        image_config: exact text of the image's configuration (OCI `config.md`).
        description: what the engine reports about the container.

    Raises:
        ContainmentError: the subclass names the first rule that is broken.
    """
    _check(DESCRIPTION_RULES, image, image_config, description)


def check_query_description(
    image: ImageIdentity, image_config: str, description: ContainerDescription
) -> None:
    """Check a started container that answers a question: as `check_description`, and closer.

    It has its task to read, and no folder of the host to write to.

    Raises:
        ContainmentError: the subclass names the first rule that is broken.
    """
    _check(QUERY_RULES, image, image_config, description)


def check_inside(description: ContainerDescription, inside: InsideView) -> None:
    """Check what the agent sees inside against every rule, and against the description.

    Raises:
        ContainmentError: the subclass names the first rule that is broken.
    """
    for rule in INSIDE_RULES:
        rule(description, inside)


def check_container(run: ContainerRun) -> None:
    """Check the evidence of a contained run against every rule.

    Raises:
        ContainmentError: the subclass names the first rule that is broken.
    """
    check_description(run.image, run.image_config, run.description)
    check_inside(run.description, run.inside)


def _check(
    rules: Iterable[_Rule],
    image: ImageIdentity,
    image_config: str,
    description: ContainerDescription,
) -> None:
    opened = _Image(image, _open_config(image, image_config))
    for rule in rules:
        rule(opened, description)


def _open_config(image: ImageIdentity, text: str) -> image_documents.ImageConfig:
    found = sha256_hex(text.encode())
    if found != image.config_digest:
        raise ImageConfigMismatchError(
            f"the image's configuration hashes to {found}, its identity names "
            f"{image.config_digest}; hand in the configuration of this very image"
        )
    try:
        config = image_documents.read(
            text, image_documents.ImageConfig, "the image's configuration"
        )
    except ImageDocumentError as error:
        raise ImageConfigMismatchError(f"{error}; build the image anew") from error
    if config.diff_ids != image.diff_ids:
        raise ImageConfigMismatchError(
            f"the image's configuration names {len(config.diff_ids)} layers, its identity "
            f"{len(image.diff_ids)}, and they are not the same; identify the image anew"
        )
    return config


# -- what the engine reports -----------------------------------------------------------------------


def _runs_the_image(image: _Image, description: ContainerDescription) -> None:
    # The classic store names an image by its configuration, the containerd store by its manifest.
    allowed = (image.identity.config_digest, image.identity.manifest_digest)
    if description.image_id not in allowed:
        raise ContainerImageError(
            f"the container runs image {description.image_id}, identified was "
            f"{image.identity.config_digest}; create the container by the image's ID, not by a name"
        )


def _runs_its_program(image: _Image, description: ContainerDescription) -> None:
    settings = image.config.settings
    _check_equal(EntryPointError, "entry point", settings.entrypoint, description.entrypoint)
    _check_equal(EntryPointError, "command", settings.command, description.command)


def _has_its_environment(image: _Image, description: ContainerDescription) -> None:
    _check_equal(
        EnvironmentVariablesError,
        "environment",
        image.config.settings.environment,
        description.environment,
    )


def _check_equal(
    error: type[ContainmentError], what: str, expected: list[str] | None, found: tuple[str, ...]
) -> None:
    if tuple(expected or ()) != found:
        raise error(
            f"the container's {what} is {_shown(found)}, its image says "
            f"{_shown(tuple(expected or ()))}; start it without a setting of your own"
        )


def _starts_in_its_folder(image: _Image, description: ContainerDescription) -> None:
    expected = image.config.settings.working_directory or "/"
    found = description.working_directory or "/"
    if found != expected:
        raise WorkingDirectoryError(
            f"the container starts in {_shown(found)}, its image says {_shown(expected)}; start it "
            "without a working directory of your own"
        )


def _has_a_plain_user(_image: _Image, description: ContainerDescription) -> None:
    user = _USER.fullmatch(description.user)
    if user is None:
        raise ContainerUserError(
            f"the container runs as {_shown(description.user)}, expected was <uid>:<gid> in "
            "digits; start it as an ordinary user of the host"
        )
    if int(user[1]) == ROOT and not description.rootless:
        raise ContainerUserError(
            "the container runs as root (uid 0); start it as an ordinary user of the host"
        )


def _is_not_privileged(_image: _Image, description: ContainerDescription) -> None:
    if description.privileged:
        raise PrivilegedError("the container is privileged; start it without `--privileged`")


def _has_a_fixed_root(_image: _Image, description: ContainerDescription) -> None:
    if not description.read_only_root:
        raise WritableRootError(
            "the container's root file system is writable; start it read-only (`--read-only`)"
        )


def _has_no_capability(_image: _Image, description: ContainerDescription) -> None:
    if description.capabilities_added:
        raise CapabilityError(
            f"capabilities were added: {_shown(description.capabilities_added)}; add none"
        )
    if ALL_CAPABILITIES not in description.capabilities_dropped:
        raise CapabilityError(
            f"dropped capabilities are {_shown(description.capabilities_dropped)}; drop "
            f"{ALL_CAPABILITIES}"
        )


def _keeps_its_profiles(_image: _Image, description: ContainerDescription) -> None:
    options = description.security_options
    if NO_NEW_PRIVILEGES.isdisjoint(options):
        raise SecurityOptionError(
            f"security options are {_shown(options)}; `no-new-privileges` must be one of them"
        )
    for option in options:
        if option not in NO_NEW_PRIVILEGES and not _chooses_a_profile(option):
            raise SecurityOptionError(
                f"security option {_shown(option)} loosens the container; leave it out"
            )


def _chooses_a_profile(option: str) -> bool:
    if option == BUILT_IN_SECCOMP:
        return True
    parts = _OPTION.fullmatch(option)
    if parts is None:
        return False
    if parts[1] == "label":
        return parts[2].startswith(LEVEL_LABEL)
    return parts[1] == "apparmor" and parts[2].strip().lower() != UNCONFINED


def _has_no_network(_image: _Image, description: ContainerDescription) -> None:
    if description.network_mode != NO_NETWORK:
        raise NetworkError(
            f"the container's network is {_shown(description.network_mode)}; start it with "
            f"`--network {NO_NETWORK}`"
        )
    others = tuple(name for name in description.networks if name != NO_NETWORK)
    if others:
        raise NetworkError(f"the container is attached to the networks {_shown(others)}; detach it")
    if description.published_ports:
        raise NetworkError(
            f"the container publishes ports {_shown(description.published_ports)}; publish none"
        )


def _has_its_own_namespaces(_image: _Image, description: ContainerDescription) -> None:
    for what, mode, allowed in (
        ("process", description.pid_mode, OWN_NAMESPACE),
        ("IPC", description.ipc_mode, OWN_NAMESPACE | {NO_IPC}),
        ("host name", description.uts_mode, OWN_NAMESPACE),
        ("user", description.user_namespace_mode, OWN_NAMESPACE),
        ("control group", description.cgroup_namespace_mode, OWN_NAMESPACE),
    ):
        if mode not in allowed:
            raise NamespaceError(
                f"the container's {what} namespace is {_shown(mode)}, shared with the host or with "
                "another container; give it a private one"
            )


def _has_no_device(_image: _Image, description: ContainerDescription) -> None:
    if description.devices:
        raise DeviceError(
            f"the container was given the devices {_shown(description.devices)}; give it none, and "
            "ask for GPUs by device requests"
        )


def _has_its_mounts_alone(_image: _Image, description: ContainerDescription) -> None:
    places = [mount.destination for mount in description.mounts]
    for mount in description.mounts:
        _check_mount(mount)
    if len(set(places)) != len(places):
        raise MountError(f"two mounts have one place: {_shown(tuple(sorted(places)))}; mount once")
    missing = tuple(place for place in NEEDED_PLACES if place not in places)
    if missing:
        raise MountError(f"nothing is mounted at {_shown(missing)}; mount it")


def _reads_its_task_alone(_image: _Image, description: ContainerDescription) -> None:
    for mount in description.mounts:
        _check_mount(mount)
    bound = tuple(mount.destination for mount in description.mounts if mount.kind == "bind")
    if bound != (RELAY_FOLDER,):
        raise MountError(
            f"folders of the host are mounted at {_shown(bound)}; a container that answers a "
            f"question has {RELAY_FOLDER} alone"
        )


def _check_mount(mount: ContainerMount) -> None:
    if mount.kind == "tmpfs":
        if mount.destination != SCRATCH:
            raise MountError(
                f"a tmpfs lies at {_shown(mount.destination)}; {SCRATCH} alone may have one"
            )
        return
    if mount.kind != "bind" or mount.destination not in READ_ONLY_PLACES:
        raise MountError(
            f"a mount of kind {mount.kind!r} lies at {_shown(mount.destination)}; allowed are bind "
            f"mounts at {', '.join(READ_ONLY_PLACES)}"
        )
    read_only = READ_ONLY_PLACES[mount.destination]
    if mount.read_only != read_only:
        expected, found = ("read-only", "writable") if read_only else ("writable", "read-only")
        raise MountError(f"the mount at {mount.destination} is {found}; mount it {expected}")


def _is_started_once(_image: _Image, description: ContainerDescription) -> None:
    if description.restart_policy not in NEVER_RESTARTED:
        raise RestartPolicyError(
            f"the engine restarts the container by the policy {_shown(description.restart_policy)};"
            " set none"
        )


def _is_not_probed(_image: _Image, description: ContainerDescription) -> None:
    if description.health_check:
        raise HealthCheckError(
            f"the engine runs the health check {_shown(description.health_check)} inside; start "
            "the container without one (`--no-healthcheck`)"
        )


def _has_no_extras(_image: _Image, description: ContainerDescription) -> None:
    if description.extras:
        raise ExtraSettingError(
            f"the container has the settings {_shown(description.extras)}, expected were none; let "
            "the agent's launcher create it"
        )


def _is_limited(_image: _Image, description: ContainerDescription) -> None:
    for what, limit in (
        ("memory", description.memory_bytes),
        ("processors", description.cpus),
        ("processes", description.most_processes),
    ):
        if limit <= 0:
            raise ResourceLimitError(
                f"the container has no limit on {what}; set one, and use an engine that enforces it"
            )


DESCRIPTION_RULES: tuple[_Rule, ...] = (
    _runs_the_image,
    _runs_its_program,
    _has_its_environment,
    _starts_in_its_folder,
    _has_a_plain_user,
    _is_not_privileged,
    _has_a_fixed_root,
    _has_no_capability,
    _keeps_its_profiles,
    _has_no_network,
    _has_its_own_namespaces,
    _has_no_device,
    _has_its_mounts_alone,
    _is_started_once,
    _is_not_probed,
    _has_no_extras,
    _is_limited,
)


QUERY_RULES = tuple(
    _reads_its_task_alone if rule is _has_its_mounts_alone else rule for rule in DESCRIPTION_RULES
)


# -- what the agent sees inside --------------------------------------------------------------------


def _is_the_described_one(description: ContainerDescription, inside: InsideView) -> None:
    expected = description.container_id[:HOSTNAME_DIGITS]
    if inside.hostname != expected:
        raise SwappedContainerError(
            f"the agent runs in a container named {_shown(inside.hostname)}, described was "
            f"{expected}; start the run again and leave its container alone"
        )


def _is_the_described_user(description: ContainerDescription, inside: InsideView) -> None:
    found = f"{inside.uid}:{inside.gid}"
    if found != description.user:
        raise ContainerUserError(
            f"the agent runs as {found}, the container was started as {_shown(description.user)}; "
            "start the run again"
        )


def _sees_no_capability(_description: ContainerDescription, inside: InsideView) -> None:
    for what, found in (
        ("effective", inside.effective_capabilities),
        ("bounding", inside.bounding_capabilities),
    ):
        if found != NO_CAPABILITIES:
            raise CapabilityError(
                f"the agent's {what} capabilities are {found}, expected were none; drop "
                f"{ALL_CAPABILITIES}"
            )


def _sees_its_filters(_description: ContainerDescription, inside: InsideView) -> None:
    if not inside.no_new_privileges:
        raise SecurityOptionError(
            "the agent could gain privileges; start the container with `no-new-privileges`"
        )
    if inside.seccomp_mode != SECCOMP_FILTER:
        raise SecurityOptionError(
            f"the agent's seccomp mode is {inside.seccomp_mode}, expected was {SECCOMP_FILTER}; "
            "use an engine with a seccomp profile"
        )


def _sees_no_network(_description: ContainerDescription, inside: InsideView) -> None:
    others = tuple(name for name in inside.network_interfaces if name != LOOPBACK)
    if others:
        raise NetworkError(
            f"the agent sees the network interfaces {_shown(others)}; start the container with "
            f"`--network {NO_NETWORK}`"
        )


def _writes_nowhere_else(_description: ContainerDescription, inside: InsideView) -> None:
    for place in inside.writable_mounts:
        allowed = place in {OUTPUT, SCRATCH} | ENGINE_MOUNTS or place.startswith(PROCESS_FOLDER)
        if not allowed:
            raise MountError(
                f"the agent finds {_shown(place)} writable; only {OUTPUT} and {SCRATCH} may be"
            )


INSIDE_RULES: tuple[Callable[[ContainerDescription, InsideView], None], ...] = (
    _is_the_described_one,
    _is_the_described_user,
    _sees_no_capability,
    _sees_its_filters,
    _sees_no_network,
    _writes_nowhere_else,
)


def _shown(found: str | tuple[str, ...]) -> str:
    """Return foreign text as it can be put into a message: quoted, and not without end."""
    text = repr(found if isinstance(found, str) else list(found))
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
