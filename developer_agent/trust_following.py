"""Following the auditor's trust root when its keys change while a session runs."""

from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.trust import read_trust_root
from auditkit.evidence.trust_history import TrustHistory
from developer_agent.client import ServerClient
from developer_agent.errors import ServerRefusedError
from developer_agent.run_folder import RunFolder, StoredFile
from schemas import TrustRoot

# More versions than an auditor makes while one session runs; each costs a request.
MOST_NEW_VERSIONS = 100


def stored_history(folder: RunFolder, trust_root: TrustRoot) -> TrustHistory:
    """Return the trusted version with the later ones that an earlier process of this run fetched.

    Raises:
        TrustRootError: a stored version does not follow; delete the folder, it is fetched again.
    """
    history = TrustHistory.of(trust_root)
    stored = sorted(folder.trust_roots.glob("*.json")) if folder.trust_roots.is_dir() else ()
    return history.joined([path.read_bytes() for path in stored])


def newer_history(
    folder: RunFolder, client: ServerClient, history: TrustHistory
) -> TrustHistory | None:
    """Ask the server for newer versions, check that they follow, and store them.

    Returns:
        The longer history; None if there is no newer version to be had, or none that those who are
        trusted have signed.

    Raises:
        ServerError: the server is away.
        DiskWriteError: the versions cannot be stored.
    """
    known = history.current.version
    try:
        newest = client.trust_root()
        number = read_trust_root(newest)[1].version
        if not known < number <= known + MOST_NEW_VERSIONS:
            return None
        # The known one too: by its exact bytes the next one can name it.
        between = [client.trust_root(version) for version in range(known, number)]
        longer = history.joined([*between, newest])
    except (EvidenceError, ServerRefusedError):
        return None
    folder.trust_roots.mkdir(exist_ok=True)
    for version, data in enumerate([*between, newest], start=known):
        StoredFile(folder.trust_roots / f"{version:06}.json").write(data)
    return longer
