"""Every attack of the test suite in one shape: what is done, what catches it, from which level.

Each module keeps its own table, in the form that suits its tests. Here they come together, so that
the threat model can be generated from them and a check without an attack is noticed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import attacks
import test_attacks
import test_custody_attacks
import test_forged_training
import test_left_out
import test_registry_attacks
import test_replay_attacks
import test_server_rules
import test_trust_attacks
import test_witness_attacks
from attacks import Attack
from elsewhere import rows_elsewhere
from forge import stage
from registered import stage_registered
from rows import Row, Section

from auditor_server.errors import ServerError
from schemas import AssuranceLevel, VerificationReport
from tests.evidence.contained import HOLES_DESCRIBED, HOLES_SEEN

OF_CONTAINERS = frozenset({"image-verified", "continuations", "continuations-logged"})
"""Checks that have something to say of runs in a container only."""

QUOTE_OF_ANOTHER_RUN = "the hardware has signed for another run"


@dataclass(frozen=True)
class Forgery:
    """Evidence that fails one check of the verifier, and holds if that check is left out.

    Attributes:
        name: what the attacker does.
        check: that catches it.
        error: its typed error.
        failing: all checks that fail, that one included.
        report: verifies the forged evidence.
    """

    name: str
    check: str
    error: str
    failing: frozenset[str]
    report: Callable[[], VerificationReport]

    def assert_caught(self) -> None:
        """What every test of a forgery asks: exactly these checks fail, with this error."""
        found = {f.check: f.error for f in self.report().findings if f.outcome == "failed"}
        assert found.keys() == self.failing
        assert found[self.check] == self.error


def forgeries() -> Iterator[Forgery]:
    """Every forgery of a bundle, whichever table it stands in."""
    for attack in (*attacks.ATTACKS, *test_custody_attacks.ATTACKS, *test_witness_attacks.ATTACKS):
        yield Forgery(
            attack.name,
            attack.check,
            attack.error,
            frozenset(attack.failing),
            lambda plot=attack.plot: stage(plot).report(),
        )
    for replayed in test_replay_attacks.ATTACKS:
        yield Forgery(
            replayed.name,
            "replay",
            replayed.error,
            frozenset({"replay"}),
            lambda plot=replayed.plot: stage(plot).report(),
        )
    for forged in test_registry_attacks.BUNDLE_ATTACKS:
        yield Forgery(
            forged.name,
            forged.check,
            forged.error,
            frozenset({forged.check}),
            lambda plot=forged.plot: stage_registered(plot).report(),
        )
    yield Forgery(
        QUOTE_OF_ANOTHER_RUN,
        "hardware-attested",
        "AttestationError",
        frozenset({"hardware-attested"}),
        report_on_the_quote_of_another_run,
    )


def report_on_the_quote_of_another_run() -> VerificationReport:
    honest = test_replay_attacks.replayed(test_replay_attacks.HONEST)
    quoted = test_replay_attacks.attested(honest, "recorded", test_replay_attacks.OTHER)
    return test_replay_attacks.judged(quoted, "recorded")


def rows() -> tuple[Row, ...]:
    """Every attack of the suite."""
    return (
        *_bundle_rows(),
        *_trust_rows(),
        *_registry_rows(),
        *_replay_rows(),
        *_server_rows(),
        *rows_elsewhere(),
    )


def _bundle_rows() -> Iterator[Row]:
    caught = test_attacks.test_exactly_the_named_check_catches
    open_containers = {attack.name for attack in attacks.CONTAINMENT}
    for attack in attacks.ATTACKS:
        if attack.name not in open_containers:
            yield _bundle_row(attack, caught)
    for name in dict.fromkeys((*HOLES_DESCRIBED, *HOLES_SEEN)):
        errors = {
            found[name][1].__name__ for found in (HOLES_DESCRIBED, HOLES_SEEN) if name in found
        }
        yield _row(
            f"a container is not closed: {name}",
            "`image-verified`",
            ", ".join(sorted(errors)),
            AssuranceLevel.L2,
            "containers",
            caught,
        )
    for attack in test_custody_attacks.ATTACKS:
        yield _bundle_row(attack, test_custody_attacks.test_the_attack_is_caught)
    for attack in test_witness_attacks.ATTACKS:
        yield _row(
            attack.name,
            f"`{attack.check}`",
            attack.error,
            AssuranceLevel.L1,
            "witnesses",
            test_witness_attacks.test_exactly_the_check_on_witnesses_catches,
        )


def _bundle_row(attack: Attack, test: Callable[..., None]) -> Row:
    contained = attack.check in OF_CONTAINERS or attack.plot.container is not None
    return _row(
        attack.name,
        f"`{attack.check}`",
        attack.error,
        AssuranceLevel.L2 if contained else AssuranceLevel.L1,
        "containers" if contained else "bundle",
        test,
    )


def _trust_rows() -> Iterator[Row]:
    module = test_trust_attacks
    for name, (_, _, misled) in module.MISLED.items():
        test = module.test_a_client_is_not_led_astray
        yield _trust_row(name, "`trust-root`", misled.__name__, test)
    for role, (check, error) in module.ROTATED_OUT.items():
        test = module.test_a_key_that_was_rotated_out_signs_nothing_later
        yield _trust_row(
            f"the auditor's {role} key is used after it was rotated out", check, error, test
        )
        test = module.test_a_key_signs_nothing_before_it_was_rotated_in
        yield _trust_row(
            f"the auditor's {role} key is used before it was rotated in", check, error, test
        )
    for role, (check, error) in module.REVOKED.items():
        test = module.test_what_a_revoked_key_signed_once_it_was_compromised_is_void
        yield _trust_row(
            f"the auditor's {role} key is stolen, and revoked since", check, error, test
        )
    test = module.test_a_stolen_key_cannot_date_documents_back
    for role in ("order", "session"):
        name = f"a document is dated back before the theft of the auditor's {role} key"
        yield _trust_row(name, module.REVOKED[role][0], "RevokedKeyError", test)
    test = module.test_a_verdict_by_a_stolen_key_needs_the_registry
    yield _trust_row(
        "a document is dated back before the theft of the auditor's verdict key",
        "verdicts",
        "RevokedKeyError",
        test,
    )


def _registry_rows() -> Iterator[Row]:
    for forged in test_registry_attacks.BUNDLE_ATTACKS:
        test = test_registry_attacks.test_exactly_the_named_check_catches
        by = f"`{forged.check}`"
        yield _row(forged.name, by, forged.error, AssuranceLevel.L1, "registry", test)
    for shown in test_registry_attacks.SHOWN_ATTACKS:
        test = test_registry_attacks.test_the_monitor_raises_an_alarm
        error = shown.error.__name__
        yield _row(shown.name, "the monitor", error, AssuranceLevel.L1, "monitor", test)
    for left_out in test_left_out.ATTACKS:
        test = test_left_out.test_only_the_comparison_with_the_registry_catches
        by, error = "the monitor, given the bundle", left_out.error.__name__
        yield _row(left_out.name, by, error, left_out.level, "monitor", test)


def _replay_rows() -> Iterator[Row]:
    level = AssuranceLevel.L3
    for replayed in test_replay_attacks.ATTACKS:
        test = test_replay_attacks.test_exactly_the_replay_check_catches
        yield _row(replayed.name, "`replay`", replayed.error, level, "replay", test)
    for forger in test_forged_training.FORGERS:
        test = test_forged_training.test_only_executing_it_again_finds_a_forged_training
        yield _row(forger.name, "`replay`", "SegmentDiffersError", level, "execution", test)
    test = test_replay_attacks.test_a_quote_of_another_run_is_caught
    by = "`hardware-attested`"
    level = AssuranceLevel.L4
    yield _row(QUOTE_OF_ANOTHER_RUN, by, "AttestationError", level, "hardware", test)


def _server_rows() -> Iterator[Row]:
    for attack in test_server_rules.ATTACKS:
        status = int(getattr(attack.error, "status", ServerError.status))
        yield _row(
            attack.name,
            f"the server ({status})",
            attack.error.__name__,
            AssuranceLevel.L1,
            "server",
            test_server_rules.test_the_server_refuses,
        )


def _trust_row(name: str, check: str, error: str, test: Callable[..., None]) -> Row:
    by = check if check.startswith("`") else f"`{check}`"
    return _row(name, by, error, AssuranceLevel.L1, "trust root", test)


def _row(
    name: str,
    by: str,
    error: str,
    level: AssuranceLevel,
    section: Section,
    test: Callable[..., None],
) -> Row:
    file = Path(test.__code__.co_filename).name
    return Row(name, by, error, level, section, f"adversary/{file}::{test.__name__}")
