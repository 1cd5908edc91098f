"""Asking for the membership codes: they live in the memory of this process, and nowhere else.

A run that goes on in another process asks again. Nothing here writes to disk, and no error message
holds a code.
"""

from auditkit.evidence.code_delivery import CodesReceiver, sign_request
from auditkit.evidence.membership_codes import SessionCodes
from developer_agent.client import ServerClient
from developer_agent.errors import SessionKeyGoneError
from developer_agent.patience import patiently
from developer_agent.session import Session
from schemas import CodesRequest


def fetch_codes(session: Session, client: ServerClient) -> SessionCodes | None:
    """Fetch the codes that T is to learn; None if the session trains without.

    Args:
        session: open, with the key that is in force for it.
        client: the auditor's server, or the relay in front of it.

    Raises:
        SessionKeyGoneError: this process has no key of the session to ask with.
        ServerError: no answer for some 20 seconds, or a refusal with its reason.
        CodesDeliveryError: what came is not encrypted to this process for this session and grant.
        PackedCodesError: the codes are not as many as the split needs.
    """
    grant = session.grant
    if grant.code_commitment is None:
        return None
    if session.key is None:
        raise SessionKeyGoneError(
            "the codes go only to the process that holds the session key, and it is gone with its "
            "container; resume the run to get another"
        )
    receiver = CodesReceiver()
    request = CodesRequest(session_id=grant.session_id, ephemeral_key=receiver.public_key)
    signed = sign_request(request, session.key)
    sealed = patiently(lambda: client.membership_codes(grant.session_id, signed))
    packed = receiver.open(sealed, grant.session_id, grant.code_commitment)
    return SessionCodes.unpack(packed, grant.split, session.config.mint.code_length)
