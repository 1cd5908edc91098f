"""Train once more, in this very process, what the session of a run folder was granted.

    python train_again.py FOLDER SPOOL

prints the digest of the weights. The grant fixes the nonce, so they must be those of the first
training, wherever that ran.
"""

import sys
from pathlib import Path

from auditkit.data.manifest import Manifest
from auditkit.data.pools import open_pool
from auditkit.evidence import canonical, dsse, statements
from auditkit.evidence.keys import SigningKey
from developer_agent.environment import make_deterministic
from developer_agent.run_config import parse_run_config, read_toml
from developer_agent.run_folder import RunFolder
from developer_agent.session import Session
from developer_agent.spool import Spool
from developer_agent.supervision import Supervision
from schemas import AuditOrder, SessionGrant, SessionRequest, TrustRoot


def session_of(base: Path) -> Session:
    """Put the session together from the run's documents; its own key may be gone."""
    folder = RunFolder(base / "run")
    config = parse_run_config(read_toml(base / "config.toml"), "config.toml")
    pool, test = open_pool(config.pool, base), open_pool(config.test, base)
    order = dsse.Envelope.from_bytes(folder.order.read())
    grant = dsse.Envelope.from_bytes(folder.grant.read())
    root = dsse.Envelope.from_bytes(folder.trust_root.read())
    return Session(
        folder=folder,
        trust_root=statements.parse(root.payload, statements.TRUST_ROOT_PREDICATE, TrustRoot),
        order=statements.parse(order.payload, statements.ORDER_PREDICATE, AuditOrder),
        request=SessionRequest.from_bytes(folder.request.read()),
        grant=statements.parse(grant.payload, statements.GRANT_PREDICATE, SessionGrant),
        grant_digest=canonical.sha256_hex(grant.payload),
        key=SigningKey.generate(),
        pool=pool,
        test=test,
        manifest=Manifest(pool, folder.manifest_key.read()),
    )


def main() -> None:
    session = session_of(Path(sys.argv[1]))
    make_deterministic(session.config.threads)
    with Spool.open(Path(sys.argv[2])) as spool, Supervision(session, spool) as supervision:
        enhanced = supervision.enhance()
        optimiser = supervision.optimiser()
        for batch in supervision.batches():
            losses = supervision.losses(batch)
            optimiser.zero_grad()
            losses.total.backward()
            optimiser.step()
            supervision.step(batch, losses)
    sys.stdout.write(canonical.sha256_hex(enhanced.weights()) + "\n")


main()
