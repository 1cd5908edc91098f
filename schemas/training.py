"""What a developer asks to train: the part of the run that is declared and signed."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.base import Count, FiniteFloat, Name, Schema

# Limits on what another party's configuration can make the auditor's server allocate.
MOST_SIDE = 1024  # pixels of height or width
MOST_CLASSES = 1_000_000  # face identification has tens of thousands
MOST_WIDTH = 16_384  # channels or units of one layer of T
MOST_MARGIN = 1.0  # larger ones leave hardly any angle that a sample could reach
LEAST_CODE_LENGTH = 32
MOST_CODE_LENGTH = 4096

# Such an architecture is a module of the developer's own, which no one else's code can build.
CUSTOM_PREFIX = "custom:"

Positive = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=1, le=MOST_SIDE)]
Width = Annotated[int, Field(ge=1, le=MOST_WIDTH)]
Scalar = bool | int | float | str
TapSetup = Literal["entry", "middle", "output", "named"]
HeadName = Literal["convolutional", "fully_connected", "strided"]
AugmentationName = Literal["none", "flip_shift", "shift", "robust"]
EvidenceName = Literal["membership", "codes"]
CustodyName = Literal["developer", "auditor"]
WirePrecision = Literal["float16", "float32"]
TaskLossName = Literal["softmax", "arcface", "cosface", "adaface"]


class TaskLossConfig(Schema):
    """The loss that trains M: softmax, or one with a margin on the cosines of a last layer."""

    name: TaskLossName = "softmax"
    scale: FiniteFloat = Field(default=64.0, gt=0.0, description="factor of the cosines")
    margin: FiniteFloat | None = Field(
        default=None,
        ge=0.0,
        le=MOST_MARGIN,
        description="radians for ArcFace and AdaFace, a cosine for CosFace; None: as published",
    )


class ModelConfig(Schema):
    """The Audited Model M: a timm architecture, or the developer's own module under a name."""

    architecture: str = Field(description="timm name, or `custom:<name>` for the user's own module")
    arguments: dict[str, Scalar | tuple[Scalar, ...]] = Field(
        default_factory=dict, description="keyword arguments of the architecture"
    )
    classes: Annotated[int, Field(ge=1, le=MOST_CLASSES)]
    channels: Literal[1, 3]
    height: Side
    width: Side
    stem_stride: Positive | None = Field(
        default=None, description="stride of the first convolution; None keeps the architecture's"
    )
    stem_pool: bool = Field(default=True, description="keep the pooling layer after the stem")
    task_loss: TaskLossConfig = Field(
        default=TaskLossConfig(), description="a margin replaces the architecture's last layer"
    )


class TapConfig(Schema):
    """Where the MINT Model reads its Auxiliary Auditable Data (aMINT, section 3.2)."""

    setup: TapSetup = "middle"
    modules: tuple[str, ...] = Field(default=(), description="module names, for setup `named`")

    @model_validator(mode="after")
    def _modules_belong_to_named(self) -> "TapConfig":
        if (self.setup == "named") != bool(self.modules):
            raise ValueError("`modules` is given with setup = 'named', and only then")
        return self


class MintConfig(Schema):
    """The MINT Model T and its weight in the objective (aMINT, Eq. 1)."""

    evidence: EvidenceName = Field(
        default="membership",
        description="what T learns: one logit, member or not, or each member's keyed code",
    )
    head: HeadName = "convolutional"
    channels: Width = Field(default=64, description="convolution width per tap")
    hidden: tuple[Width, ...] = Field(default=(256,), description="fully connected widths")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    task_weight: FiniteFloat = Field(default=1.0, ge=0.0, description="lambda 1")
    mint_weight: FiniteFloat = Field(default=1.0, ge=0.0, description="lambda 2; 0 trains M alone")
    code_length: Annotated[int, Field(ge=LEAST_CODE_LENGTH, le=MOST_CODE_LENGTH)] = Field(
        default=256, description="numbers in a membership code; z cannot much exceed its root"
    )
    frozen: bool = Field(
        default=False,
        description="T keeps the nonce's initial weights, so that all evidence sits in M",
    )
    custody: CustodyName = Field(
        default="developer",
        description="who holds T and the codes during the training: the process that trains M, or "
        "the auditor's server, which hands out gradients only",
    )
    wire_precision: WirePrecision = Field(
        default="float16",
        description="of activations and gradients on their way, where the auditor holds T",
    )

    @model_validator(mode="after")
    def _is_trained_where_the_auditor_holds_it(self) -> "MintConfig":
        if self.custody == "auditor" and self.mint_weight == 0.0:
            raise ValueError("with custody = 'auditor', mint_weight must be above 0")
        return self

    @property
    def outputs(self) -> int:
        """Number of T's outputs."""
        return self.code_length if self.evidence == "codes" else 1


class OptimiserConfig(Schema):
    """How both models are optimised; `l2` is the L2 term of Eq. 1."""

    name: Literal["sgd", "adam"] = "sgd"
    learning_rate: FiniteFloat = Field(gt=0.0)
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    l2: FiniteFloat = Field(default=0.0, ge=0.0)
    schedule: Literal["constant", "one_cycle"] = "one_cycle"


class TrainingConfig(Schema):
    """One supervised training, complete: with the grant's nonce it determines every weight."""

    schema_version: Literal[1] = 1
    name: Name
    model: ModelConfig
    taps: TapConfig = TapConfig()
    mint: MintConfig = MintConfig()
    optimiser: OptimiserConfig
    epochs: Positive
    batch_size: Positive = Field(description="samples of D (told and silent) per step, at most")
    external_batch_size: Count = Field(description="samples of E per step")
    augmentation: AugmentationName = "none"
    shift_pixels: Count = Field(default=2, description="largest shift, where augmentation shifts")
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: Positive = 2
    state_interval_steps: Positive = Field(default=100, description="steps between saved states")
    evaluation_interval_epochs: Positive = 1
