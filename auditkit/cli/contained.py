"""What runs inside the closed container: a training, told what to do through a socket, or a task.

Replays and questions find their task lying where a training finds the socket.
"""

import sys
import time
from pathlib import Path

from auditkit.cli.developer import EXIT_INTERRUPTED, supervise
from auditkit.cli.errors import EXPECTED_ERRORS, UsageError, describe
from auditkit.cli.output import print_error
from auditkit.evidence import containment
from containers.query_task import TASK as QUERY
from developer_agent.client import ServerClient
from developer_agent.contained_config import PACKAGED_CODE, RELAY_URL, check_contained
from developer_agent.errors import ServerError
from developer_agent.inside import look_around
from developer_agent.launch_document import LaunchDocument
from developer_agent.query_execution import answer_query
from developer_agent.relay import SOCKET_NAME
from developer_agent.replay_execution import TASK, run_task
from developer_agent.supervised_run import Run
from schemas import ContainerRun

EXIT_ERROR = 1
RELAY_FOLDER = Path(containment.RELAY_FOLDER)
SOCKET = RELAY_FOLDER / SOCKET_NAME
# The launcher checks the started container before it hands out the document; seconds.
LAUNCH_DOCUMENT_TIMEOUT = 120.0
POLL_INTERVAL = 0.1


def main() -> None:
    """Do the task, or train as the launch document says with the exit codes of `auditkit train`."""
    try:
        if (RELAY_FOLDER / QUERY).exists():
            answer = answer_query(RELAY_FOLDER, Path(PACKAGED_CODE))
            sys.stdout.write(f"\n{answer}\n")
            return
        if (RELAY_FOLDER / TASK).exists():
            run_task(
                RELAY_FOLDER,
                Path(containment.OUTPUT),
                code_folder=Path(PACKAGED_CODE),
                inside=look_around(),
            )
            return
        document = LaunchDocument.from_bytes(_await_document())
        run = _run(document)
        supervise(run, document.config_path, resume=document.resume, as_json=document.json_output)
    except EXPECTED_ERRORS as error:
        print_error(describe(error))
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _await_document() -> bytes:
    deadline = time.monotonic() + LAUNCH_DOCUMENT_TIMEOUT
    with ServerClient(RELAY_URL, socket=SOCKET) as relay:
        while time.monotonic() < deadline:
            try:
                document = relay.launch_document()
            except ServerError as error:
                if not error.temporary:
                    raise
                document = None  # the relay is being started again
            if document is not None:
                return document
            time.sleep(POLL_INTERVAL)
    raise UsageError(
        f"no launch document came within {LAUNCH_DOCUMENT_TIMEOUT:g} s: the launcher has found "
        "something wrong with this container, or has ended; see its message"
    )


def _run(document: LaunchDocument) -> Run:
    """Look at this very process, refuse what the rules refuse, and return what to train."""
    container = ContainerRun(
        image=document.image,
        image_config=document.image_config,
        signature=document.signature,
        description=document.description,
        inside=look_around(),
    )
    containment.check_container(container)
    check_contained(document.run, document.image_config.encode())
    return Run(
        config=document.run,
        base=Path("/"),
        token=None,
        container=container,
        socket=SOCKET,
        trust_root=document.trust_root.encode(),
        code_folder=Path(PACKAGED_CODE),
    )
