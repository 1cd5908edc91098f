"""What every signed or transmitted document has in common: strict, immutable, versioned."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, lower-case hex")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]  # RFC 8785 carries integers exactly up to 2^53
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, lt=1.0)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Milliseconds = Annotated[int, Field(ge=0, le=2**53 - 1, description="Unix time in milliseconds")]


class Schema(BaseModel):
    """Base of every document: unknown fields are refused, values are never coerced or changed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    @field_validator("schema_version", "channels", "level", mode="before", check_fields=False)
    @classmethod
    def _is_a_whole_number(cls, value: object) -> object:
        if value is None:
            return value  # whether it may be missing is the field's own type
        # In Python `true` and 1.0 equal 1, and literals and enumerations would take them for it.
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("expected a whole number")  # noqa: TRY004 - what pydantic expects
        return value

    def as_json(self) -> dict[str, Any]:
        """Return the document as plain JSON types, every field present."""
        return self.model_dump(mode="json")

    @classmethod
    def from_bytes(cls, data: bytes | str) -> Self:
        """Parse and validate one JSON document.

        Raises:
            pydantic.ValidationError: the bytes are not JSON, or break the schema.
        """
        return cls.model_validate_json(data)
