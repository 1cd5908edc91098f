"""Who sends a request, in which role, and for which organisation."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

Role = Literal["auditor", "developer", "compliance-officer", "data-subject-desk"]
ROLES: tuple[Role, ...] = get_args(Role)
EXAMINERS: tuple[Role, ...] = ("auditor", "compliance-officer", "data-subject-desk")
"""Who may ask about pictures, and see what was answered."""

AUTHORITY: Final = "auditor"
"""The auditor's own organisation, in every database. Its people see the sessions of all others."""


@dataclass(frozen=True)
class Principal:
    """Who sends a request.

    Attributes:
        name: of the token, or `user/<name>` of a person who signed in; never empty.
        role: says what may be done.
        organisation: says whose sessions are seen.
        session_id: the only session that the token is good for; None: any that is seen.
    """

    name: str
    role: Role
    organisation: str
    session_id: str | None = None

    @property
    def sees_all(self) -> bool:
        """The auditor's own people see every organisation's sessions; others, and developers, not.

        Whoever does not is never given what the auditor keeps from a developer.
        """
        return self.organisation == AUTHORITY and self.role != "developer"

    @property
    def sees_verdicts(self) -> bool:
        """A question about a picture is personal data of who is in it, and no developer's concern.

        Whoever may ask such questions may see what was answered; developers may do neither.
        """
        return self.role in EXAMINERS
