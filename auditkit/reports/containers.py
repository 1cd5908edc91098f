"""What the report says of the container: which image ran, who allowed it, what it could do.

Every answer is put together from the evidence itself, container by container; whether the evidence
holds is the finding of the check `image-verified`, and stands above.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cryptography.hazmat.primitives import serialization

from auditkit.evidence import containment
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.image_signatures import verify_image_signature
from auditkit.reports import formatting
from auditkit.reports.content import ReportInput
from schemas import AuditOrder, ContainerRun, Finding

IMAGE_CHECK = "image-verified"
BYTES_PER_GIB = 2**30
NOTHING = "nothing"

PLACES = {
    containment.RELAY_FOLDER: "the one line to the auditor’s server",
    containment.OUTPUT: "the results",
    containment.POOL: "the pool of samples",
    containment.TEST: "the test samples",
    containment.SCRATCH: "scratch space, gone with the container",
}
"""What lies at the places inside a container, in words."""


@dataclass(frozen=True)
class Answer:
    """One question about the container, what the evidence says, and which of its fields say so.

    A text of several lines is a list.
    """

    question: str
    text: str
    source: str


@dataclass(frozen=True)
class ContainerRow:
    """One of the containers that a session ran in, one after another."""

    number: int
    identifier: str
    since: str
    took_over: str
    named: str


@dataclass(frozen=True)
class ContainerSection:
    """Everything that the section on the container shows."""

    run: ContainerRun
    finding: Finding | None
    admission: str
    answers: tuple[Answer, ...]
    containers: tuple[ContainerRow, ...]


def container_section(report: ReportInput) -> ContainerSection | None:
    """Return what is known of the session's containers; None if it ran without one."""
    first = report.request.container
    if first is None:
        return None
    runs = [first, *(found.run for found in report.continuations)]
    return ContainerSection(
        run=first,
        finding=image_finding(report),
        admission=admission(report.order, first),
        answers=tuple(
            Answer(question, _of_each(runs, describe), source)
            for question, describe, source in QUESTIONS
        ),
        containers=_rows(report, first),
    )


def image_finding(report: ReportInput) -> Finding | None:
    """Return what the check of the image has found; None if it was not made at all."""
    for finding in report.verification.findings:
        if finding.check == IMAGE_CHECK:
            return finding
    return None


def admission(order: AuditOrder, run: ContainerRun) -> str:
    """Return by what an order allows an image: `is number 1 of the 2 images that the order lists`.

    The same rule as `auditkit.evidence.policy.check_image`, told.
    """
    if run.image.config_digest in order.images:
        number = order.images.index(run.image.config_digest) + 1
        listed = formatting.count_of(len(order.images), "image")
        return f"is number {number} of the {listed} that the order lists"
    if run.signature is not None:
        for number, key in enumerate(order.image_keys, start=1):
            try:
                verify_image_signature((key,), run.image, run.signature)
                fingerprint = key_fingerprint(key)
            except EvidenceError:
                continue
            keys = formatting.count_of(len(order.image_keys), "key")
            return (
                f"is signed by number {number} of the {keys} that the order trusts, whose "
                f"SHA-256 is {fingerprint}"
            )
    return "is neither listed by the order nor signed by a key that the order trusts"


def key_fingerprint(pem: str) -> str:
    """Return the SHA-256 of a public key (DER, SubjectPublicKeyInfo) in hex."""
    key = serialization.load_pem_public_key(pem.encode())
    return sha256_hex(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def _of_each(runs: Sequence[ContainerRun], describe: Callable[[ContainerRun], str]) -> str:
    """Return what is said of all containers, or of each where they differ."""
    texts = [describe(run) for run in runs]
    if len(set(texts)) == 1:
        return texts[0]
    return "\n".join(f"Container {number}: {text}" for number, text in enumerate(texts, start=1))


def _network(run: ContainerRun) -> str:
    description, inside = run.description, run.inside
    modes = {description.network_mode, *description.networks}
    others = set(inside.network_interfaces) - {containment.LOOPBACK}
    if modes == {containment.NO_NETWORK} and not others and not description.published_ports:
        return "No. It was started without a network, and from inside none was to be seen."
    return (
        f"Yes: it was started with {_listed(sorted(modes))}, published ports: "
        f"{_listed(description.published_ports)}, and saw the interfaces "
        f"{_listed(inside.network_interfaces)}."
    )


def _own_files(run: ContainerRun) -> str:
    if run.description.read_only_root:
        return "No. All files of the image were read-only."
    return "Yes: the files of the image were writable."


def _program(run: ContainerRun) -> str:
    started = " ".join((*run.description.entrypoint, *run.description.command))
    checks = run.description.health_check
    beside = f" Beside it the engine ran: {' '.join(checks)}." if checks else ""
    return f"{started}, in the folder {run.description.working_directory or '/'}.{beside}"


def _mounts(run: ContainerRun) -> str:
    described = [
        f"{mount.destination}: {PLACES.get(mount.destination, 'unexpected')}, "
        f"{'read-only' if mount.read_only else 'writable'}"
        for mount in sorted(run.description.mounts, key=lambda mount: mount.destination)
    ]
    return "\n".join(described) or NOTHING


def _rights(run: ContainerRun) -> str:
    description, inside = run.description, run.inside
    found = [
        text
        for held, text in (
            (description.privileged, "it was privileged"),
            (bool(description.capabilities_added), _listed(description.capabilities_added)),
            (
                inside.bounding_capabilities != containment.NO_CAPABILITIES
                or inside.effective_capabilities != containment.NO_CAPABILITIES,
                "it kept rights of the administrator",
            ),
            (not inside.no_new_privileges, "it could gain rights"),
            (
                inside.seccomp_mode != containment.SECCOMP_FILTER,
                "its system calls were not filtered",
            ),
            (bool(description.devices), f"devices: {_listed(description.devices)}"),
        )
        if held
    ]
    if found:
        return f"Yes: {_listed(found)}."
    return (
        "No. It had none of the administrator’s rights, could gain none, and its system calls "
        "were filtered."
    )


def _user(run: ContainerRun) -> str:
    suffix = " of a rootless engine" if run.description.rootless else ""
    kind = "the administrator" if run.inside.uid == containment.ROOT else "an ordinary user"
    return f"As {kind}{suffix} (uid:gid {run.inside.uid}:{run.inside.gid})."


def _limits(run: ContainerRun) -> str:
    description = run.description
    limits = (
        (description.memory_bytes, f"{description.memory_bytes / BYTES_PER_GIB:.3g} GiB of memory"),
        (description.cpus, f"{description.cpus:g} processor cores"),
        (
            description.most_processes,
            formatting.count_of(description.most_processes, "process", "processes"),
        ),
    )
    missing = any(limit <= 0 for limit, _ in limits)
    text = ", ".join(words for limit, words in limits if limit > 0)
    return f"{text or NOTHING}{'; the rest without a limit' if missing else ''}."


def _gpus(run: ContainerRun) -> str:
    return f"{_listed(run.description.gpus)}." if run.description.gpus else "None."


def _engine(run: ContainerRun) -> str:
    return f"{run.description.engine}{', rootless' if run.description.rootless else ''}."


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items) if items else "none"


QUESTIONS: tuple[tuple[str, Callable[[ContainerRun], str], str], ...] = (
    (
        "Could it reach a network?",
        _network,
        "description.network_mode, .networks, .published_ports; inside.network_interfaces",
    ),
    ("Could it change the program that ran?", _own_files, "description.read_only_root"),
    (
        "Which program was started?",
        _program,
        "description.entrypoint, .command, .working_directory, .health_check",
    ),
    ("What of the developer’s machine was inside?", _mounts, "description.mounts"),
    (
        "Had it special rights?",
        _rights,
        (
            "description.privileged, .capabilities_added, .devices; inside.effective_capabilities, "
            ".bounding_capabilities, .no_new_privileges, .seccomp_mode"
        ),
    ),
    ("As whom did it run?", _user, "description.rootless; inside.uid, .gid"),
    ("How much could it use?", _limits, "description.memory_bytes, .cpus, .most_processes"),
    ("Which graphics processors?", _gpus, "description.gpus"),
    ("Which engine ran it?", _engine, "description.engine, .rootless"),
)


def _rows(report: ReportInput, first: ContainerRun) -> tuple[ContainerRow, ...]:
    rows = [
        ContainerRow(
            number=1,
            identifier=first.description.container_id,
            since=formatting.moment(report.grant.valid_from),
            took_over="from the start",
            named="grant record, number 0" if report.start else "not logged",
        )
    ]
    superseded = {
        number
        for number, (found, after) in enumerate(pairwise(report.continuations), start=2)
        if found.log_size == after.log_size
    }
    for number, found in enumerate(report.continuations, start=2):
        if found.record is not None:
            named = f"continuation record, number {formatting.integer(found.record)}"
        elif number in superseded:
            named = "nothing: it ended before it wrote a record"
        else:
            named = "nothing"
        rows.append(
            ContainerRow(
                number=number,
                identifier=found.run.description.container_id,
                since=formatting.moment(found.granted_at),
                took_over=f"after {formatting.count_of(found.log_size, 'record')}",
                named=named,
            )
        )
    return tuple(rows)
