"""Which image ran, who allowed it, and what it could do: in words that a lawyer can use."""

import re
from dataclasses import replace

import pytest
from report_page import found, page, with_findings

from auditkit.evidence import containment
from auditkit.reports import ReportInput, render_html
from auditkit.reports.containers import QUESTIONS, admission, container_section, key_fingerprint
from schemas import (
    AssuranceLevel,
    ContainerDescription,
    ContainerMount,
    ContainerRun,
    InsideView,
)
from tests.evidence.contained import (
    contained_run,
    container_id,
    identity,
    image_key,
    pem,
    signed_image,
)


def described(run: ContainerRun, **changes) -> ContainerRun:
    return run.model_copy(update={"description": run.description.model_copy(update=changes)})


def seen(run: ContainerRun, **changes) -> ContainerRun:
    return run.model_copy(update={"inside": run.inside.model_copy(update=changes)})


def in_container(report: ReportInput, run: ContainerRun) -> ReportInput:
    request = report.request.model_copy(update={"container": run})
    return replace(report, request=request, continuations=())


def answers(report: ReportInput) -> dict[str, str]:
    section = container_section(report)
    return {answer.question: answer.text for answer in section.answers}


def section_text(report: ReportInput) -> str:
    text = page(report).text
    return text[text.index("4 The container A container") : text.index("5 Error rates The")]


def test_the_fixture_is_a_container_that_keeps_every_rule():
    containment.check_container(contained_run())


def test_the_image_is_named_by_all_its_digests(contained_report):
    text = section_text(contained_report)
    image = identity()
    for digest in (image.config_digest, image.manifest_digest, image.archive_digest):
        assert digest in text
    for digest in image.diff_ids:
        assert digest in text
    assert "it is number 2 of the 2 images that the order lists" in text
    assert "as in the saved file" in text


def test_a_closed_container_is_described_in_plain_words(contained_report):
    text = section_text(contained_report)
    for sentence in (
        "Checked, and in order",
        "Each of the 3 containers ran the image below",
        "Could it reach a network? No.",
        "Could it change the program that ran? No. All files of the image were read-only.",
        "Had it special rights? No.",
        "As an ordinary user (uid:gid 1000:1000).",
        "4 GiB of memory, 2 processor cores, 1,024 processes.",
        "Docker Engine 20.10.24, linux/amd64.",
        "/data/pool: the pool of samples, read-only",
        "python3 -I /opt/auditkit/agent.py",
    ):
        assert sentence in text


def test_every_container_of_the_session_is_listed(contained_report):
    text = section_text(contained_report)
    first, second, third = (container_id(number)[:12] for number in (1, 2, 3))
    assert "3 containers ran, one after another" in text
    assert f"{first}… 2 March 2026, 09:00 UTC from the start grant record, number 0" in text
    assert f"{second}… 2 March 2026, 09:07 UTC after 610 records nothing: it ended before" in text
    assert f"{third}… 2 March 2026, 09:09 UTC after 610 records continuation record" in text
    one = section_text(replace(contained_report, continuations=()))
    assert "One container ran from beginning to end" in one
    assert "signing key of its own" not in one


def test_the_summary_says_what_level_two_means(contained_report):
    text = page(contained_report).text
    level = (
        "L2, complete log, and closed containers of an allowed image, as engine and agent report"
    )
    assert f"Assurance level: {level}" in text
    proven = text.split("What was proven")[1].split("What was not proven")[0]
    assert "It ran in 3 containers, one after another, locked down" in proven
    assert "is number 2 of the 2 images that the order lists (section 4)" in proven
    assert "it does not exclude a developer who writes their own agent, launcher or" in proven
    open_points = text.split("What was not proven")[1]
    assert "Which code ran." not in open_points
    assert "An attack by the machine’s administrator." in open_points


def test_without_a_container_the_cap_is_said_where_it_counts(session_report):
    text = page(session_report).text
    assert "The training did not run in a container. It was an ordinary program" in text
    assert "The assurance level can therefore not rise above L1" in text
    assert "Without a container, no evidence reaches beyond assurance level L1." in text
    assert "The image: what was allowed to run" not in text


def test_a_failed_check_stands_above_what_the_machine_reported(contained_report):
    failed = with_findings(
        contained_report,
        AssuranceLevel.L0,
        found(
            "image-verified",
            "failed",
            "the container's root file system is writable",
            "WritableRootError",
        ),
    )
    text = section_text(failed)
    assert "The check of the container failed: the container's root file system is writable" in text
    assert "Error: WritableRootError" in text
    assert "Checked, and in order" not in text


def test_a_container_that_nobody_checked_is_not_called_in_order(contained_report):
    text = section_text(with_findings(contained_report, AssuranceLevel.L0))
    assert "The container was not checked." in text
    assert "Checked, and in order" not in text


@pytest.mark.parametrize(
    ("run", "question", "answer"),
    [
        (described(contained_run(), network_mode="host"), "Could it reach a network?", "host"),
        (
            seen(contained_run(), network_interfaces=("eth0", "lo")),
            "Could it reach a network?",
            "eth0",
        ),
        (
            described(contained_run(), published_ports=("8080/tcp",)),
            "Could it reach a network?",
            "8080",
        ),
        (
            described(contained_run(), read_only_root=False),
            "Could it change the program that ran?",
            "writable",
        ),
        (
            described(contained_run(), health_check=("CMD", "sh", "-c", "steal")),
            "Which program was started?",
            "Beside it the engine ran: CMD sh -c steal.",
        ),
        (described(contained_run(), privileged=True), "Had it special rights?", "privileged"),
        (
            described(contained_run(), capabilities_added=("SYS_ADMIN",)),
            "Had it special rights?",
            "SYS_ADMIN",
        ),
        (
            seen(contained_run(), effective_capabilities="f" * 16),
            "Had it special rights?",
            "kept rights of the administrator",
        ),
        (seen(contained_run(), no_new_privileges=False), "Had it special rights?", "gain rights"),
        (seen(contained_run(), seccomp_mode=0), "Had it special rights?", "not filtered"),
        (
            described(contained_run(), devices=("/dev/kmem",)),
            "Had it special rights?",
            "/dev/kmem",
        ),
        (seen(contained_run(), uid=0), "As whom did it run?", "the administrator"),
        (
            described(contained_run(), memory_bytes=0),
            "How much could it use?",
            "the rest without a limit",
        ),
        (
            described(
                contained_run(),
                mounts=(ContainerMount(destination="/etc", kind="bind", read_only=True),),
            ),
            "What of the developer’s machine was inside?",
            "/etc: unexpected",
        ),
        (described(contained_run(), gpus=("all",)), "Which graphics processors?", "all."),
        (described(contained_run(), rootless=True), "Which engine ran it?", "rootless"),
    ],
)
def test_no_answer_is_good_by_itself(contained_report, run, question, answer):
    told = answers(in_container(contained_report, run))
    good = answers(contained_report)
    assert answer in told[question]
    assert told[question] != good[question]
    assert {q for q in good if told[q] != good[q]} <= {question, "As whom did it run?"}


def test_where_containers_differ_each_is_described(contained_report):
    open_one = replace(
        contained_report.continuations[1], run=described(contained_run(3), read_only_root=False)
    )
    report = replace(contained_report, continuations=(contained_report.continuations[0], open_one))
    text = answers(report)["Could it change the program that ran?"]
    assert text.splitlines() == [
        "Container 1: No. All files of the image were read-only.",
        "Container 2: No. All files of the image were read-only.",
        "Container 3: Yes: the files of the image were writable.",
    ]


def test_every_answer_names_fields_that_exist():
    for _, _, source in QUESTIONS:
        for part in source.split("; "):
            names = re.findall(r"\.(\w+)", part)
            model = ContainerDescription if part.startswith("description") else InsideView
            assert names
            assert set(names) <= set(model.model_fields)


def test_a_signed_image_names_the_key_that_allowed_it(contained_report):
    keys = [image_key(name) for name in ("first", "second", "third")]
    pems = [pem(key) for key in keys]
    run = contained_run(signature=signed_image(keys[1]))
    order = contained_report.order.model_copy(update={"images": (), "image_keys": tuple(pems)})
    text = admission(order, run)
    assert text.startswith("is signed by number 2 of the 3 keys that the order trusts")
    assert key_fingerprint(pems[1]) in text
    strangers = order.model_copy(update={"image_keys": (pems[0], "no key at all")})
    assert admission(strangers, run).startswith("is neither listed by the order nor signed")


def test_hostile_text_of_an_engine_stays_text(contained_report):
    hostile = "<script>alert(1)</script>"
    run = described(
        contained_run(),
        engine=hostile,
        entrypoint=(hostile,),
        gpus=(hostile,),
        network_mode=hostile,
        mounts=(ContainerMount(destination=hostile, kind="bind", read_only=True),),
    )
    html = render_html(in_container(contained_report, run))
    assert hostile not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 5
