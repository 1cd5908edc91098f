"""What the launcher on the host tells the agent inside the container, through the relay.

The document is local and unsigned, and never leaves the machine. Nothing in it is evidence: the
agent checks it by the rules of containment, and the server checks again what the agent makes of it.
"""

from pydantic import Field

from developer_agent.run_config import RunConfig
from schemas import ContainerDescription, ImageIdentity, ImageSignature
from schemas.base import Schema


class LaunchDocument(Schema):
    """One start of one container. A fresh container gets a fresh document."""

    image: ImageIdentity = Field(description="recomputed from what the engine has on disk")
    image_config: str = Field(description="exact text of the image's configuration")
    signature: ImageSignature | None = None
    description: ContainerDescription
    run: RunConfig = Field(description="its paths are those inside the container")
    trust_root: str = Field(description="text of the auditor's trust root file")
    config_path: str = Field(description="as the user typed it, for messages")
    resume: bool
    json_output: bool = Field(description="print for programs instead of people")
