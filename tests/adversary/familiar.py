"""The attacks that come to mind first, and where each of them ends.

What is caught names the attacks of the catalogue that are carried out. What is not, or not wholly,
says why, and says it in words that whoever reads a result understands.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class FamiliarAttack:
    """One of them.

    Attributes:
        name: what the attacker does.
        caught: names of attacks in the catalogue; empty: nothing catches it.
        remains: what is not caught, and why; empty: nothing is known.
    """

    name: str
    caught: tuple[str, ...] = ()
    remains: str = ""


FAMILIAR = (
    FamiliarAttack(
        "A log is made up, and nothing is trained",
        ("a log is made up, and nothing is trained", "a segment was forged"),
        "Only a replay catches it. Below L3 a made-up log can hold.",
    ),
    FamiliarAttack(
        "A log is edited",
        (
            "a logged accuracy is edited in the archive",
            "a byte is changed and every checksum repaired",
        ),
    ),
    FamiliarAttack(
        "A log is cut off",
        (
            "the log is cut off, its checkpoints are kept",
            "the last records are covered by no checkpoint",
            "the log is never sealed",
        ),
    ),
    FamiliarAttack(
        "Records change places",
        ("two lines of the log are swapped in the archive", "two batches change places"),
    ),
    FamiliarAttack(
        "A log has two histories",
        (
            "the log is forked: two checkpoints of one size",
            "the server is shown a second history of a log",
        ),
    ),
    FamiliarAttack(
        "The log of another session is used",
        ("the whole log of another session is replayed", "the log of another session is sent"),
    ),
    FamiliarAttack(
        "The auditor shows different people different logs",
        (
            "a second view",
            "a session is sealed twice, for two bundles",
            "a bundle is of a registry that nobody else is shown",
            "of two histories each is shown to half of the witnesses",
            "witnesses are shown a second history of the same size",
            "a second log ends with the same seal",
        ),
        "Caught where the order names witnesses, or somebody monitors the registry. One bundle "
        "alone cannot show it.",
    ),
    FamiliarAttack(
        "M is trained on hidden samples that T never hears of",
        ("M is also trained on samples that are in no pool and that T never hears of",),
        "Only a replay catches it, in the segments that were drawn. Code in the ordered image "
        "that does so is executed again just as it is.",
    ),
    FamiliarAttack(
        "T is told of members that they are strangers",
        ("T is told of members that they are strangers",),
        "Only a replay catches it. The share of members that are found suffers, and is in the "
        "report.",
    ),
    FamiliarAttack(
        "Some samples are shown more often than others",
        (
            "a member is shown twice, and another one not at all",
            "the samples of a broken epoch are shown more often than others",
            "more epochs than ordered hide the members",
        ),
        "What the log admits is caught from L1. What it denies takes a replay. Copies of one "
        "sample in the pool are not noticed.",
    ),
    FamiliarAttack(
        "T is replaced",
        (
            "T is replaced by an untrained one between two states",
            "T is exchanged after the training",
            "the sealed description names another T",
        ),
    ),
    FamiliarAttack(
        "M is fine-tuned after the seal",
        (
            "M+ is fine-tuned after sealing",
            "M is fine-tuned after the last state",
            "another model than the sealed one is handed in",
            "after an honest training the final weights are exchanged for another model's",
        ),
        "A model that is exchanged earlier, and trained on from there, is found if that segment is "
        "drawn. What the developer runs in production is for the auditor to compare: the seal "
        "fixes the audited weights, not those in use.",
    ),
    FamiliarAttack(
        "Another image is used, or a modified one",
        (
            "a modified image is used",
            "an image carries the name of an ordered one, and has other contents",
            "an image has one byte, one layer or one entry point changed",
            "another image was executed",
        ),
        "Which image ran is what the developer's machine says, unless its hardware is attested.",
    ),
    FamiliarAttack(
        "A key is stolen",
        (
            "the auditor's session key is stolen, and revoked since",
            "a document is dated back before the theft of the auditor's session key",
            "the first container's key goes on signing after the continuation",
            "a revoked session key is used",
            "a revoked key goes on sending",
        ),
        "Until the theft is known and a new trust root has reached the reader, a stolen key "
        "speaks for its owner.",
    ),
    FamiliarAttack(
        "A key has expired",
        (
            "the auditor's key cosigns after the session has expired",
            "the auditor's cosigner key is used after it was rotated out",
            "a session goes on after its time",
            "an expired next version",
        ),
    ),
    FamiliarAttack(
        "A clock is moved",
        (
            "the agent's clock runs an hour ahead",
            "the clock is set back in between",
            "the agent's clock is set three hours ahead",
            "an entry is dated back",
        ),
        "The auditor's own clock is trusted, unless witnesses or the registry contradict it.",
    ),
    FamiliarAttack(
        "A pickle or a ZIP bomb is handed in as a model",
        ("a pickle, or a ZIP that unpacks without end, is handed in as a model",),
    ),
    FamiliarAttack(
        "A path leads out of a bundle",
        ("a path leads out of the bundle",),
    ),
    FamiliarAttack(
        "Records are oversized, malformed or full of NaN",
        (
            "malformed, oversized or NaN-laden records are sent",
            "NaN hides a diverged training",
            "a number is larger than any reader holds exactly",
            "a flush holds more records than one may",
        ),
    ),
    FamiliarAttack(
        "An altered copy of a member is passed off as the member",
        ("an altered copy of a member asks for the member's code",),
    ),
    FamiliarAttack(
        "Samples that resemble members, or are made to score high, are asked about",
        (),
        "A blind query may call them members. The error rate holds for samples like those of C. "
        "Only a sample's own code, with an opening, tells it from its copies.",
    ),
    FamiliarAttack(
        "Queries come in floods",
        (),
        "There is no limit on their number yet. The size of each is limited. Many queries with "
        "small changes can find out how to score high or low.",
    ),
    FamiliarAttack(
        "Another developer's session is read",
        (
            "another developer's session is read or written",
            "another developer writes into a session",
        ),
        "Names, number and times of all sessions are public in the registry.",
    ),
    FamiliarAttack(
        "A failed replay is repeated until one holds",
        (
            "a failed replay is followed by one that holds",
            "a failed replay is kept out of the bundle",
            "a failed replay is to be replaced by a better one",
            "a draw gets two results, for two bundles",
            "the last replay, which failed, is taken out of the bundle with its entries",
            "a bundle from before the failed replay is shown",
        ),
        "A bundle alone cannot show that its last replays were left out. "
        "`auditkit monitor --bundle` compares it with the whole registry.",
    ),
    FamiliarAttack(
        "The segments of a replay are chosen, not drawn",
        (
            "the drawn segments are chosen, whatever the seed says",
            "segments are drawn before the seal",
        ),
        "The draw follows from a seed of the auditor's. That the seed was random cannot be proven.",
    ),
)
