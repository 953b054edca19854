"""The base of all API types, and the kinds of value that Kubernetes has and pydantic has not."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, WithJsonSchema
from pydantic.alias_generators import to_camel

from llamacluster.api.quantity import QUANTITY_PATTERN, parse_quantity

MAX_QUANTITY_LENGTH = 32


def _a_quantity(value: str | int) -> str | int:
    """`value`; raises ValueError for what is none, which an older CRD may have let through."""
    if len(str(value)) > MAX_QUANTITY_LENGTH or (isinstance(value, int) and value >= 2**63):
        raise ValueError("is more than any quantity")
    parse_quantity(value)
    return value


Quantity = Annotated[
    str | int,
    AfterValidator(_a_quantity),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 0,
            "pattern": QUANTITY_PATTERN,
            "maxLength": MAX_QUANTITY_LENGTH,
        }
    ),
]
"""A Kubernetes quantity, as the user wrote it."""

DnsSubdomain = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        min_length=1,
        max_length=253,
    ),
]
"""RFC 1123 subdomain: the name of a Secret, a claim, a StorageClass."""

KEY_PATTERN = (
    r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
"""Keys of labels and annotations, and names of resources."""

LabelKey = Annotated[str, StringConstraints(pattern=KEY_PATTERN, min_length=1, max_length=317)]

LabelValue = Annotated[
    str,
    StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63),
]


class Rule(dict[str, str]):
    """A CEL rule of the CRD: the API server refuses an object for which it is false."""

    def __init__(
        self,
        rule: str,
        message: str,
        field_path: str | None = None,
        *,
        message_expression: str | None = None,
    ) -> None:
        super().__init__(rule=rule, message=message)
        if field_path:
            self["fieldPath"] = field_path
        if message_expression:
            self["messageExpression"] = message_expression


def rules(*args: Rule) -> dict[str, Any]:
    """`json_schema_extra` that carries CEL rules into the CRD."""
    return {"x-kubernetes-validations": [dict(rule) for rule in args]}


class ApiModel(BaseModel):
    """camelCase outside, snake_case inside; an unknown field is an error, not a silent loss."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        use_enum_values=False,
    )


class StatusModel(ApiModel):
    """Status is written by the operator: what it does not know yet is absent, and a newer
    operator's fields must not be an error for an older one."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)


class LocalObjectReference(ApiModel):
    """Reference to an object by name in the same namespace."""

    name: DnsSubdomain
    """Name of the object."""


def name_of(reference: LocalObjectReference | None) -> str | None:
    """The name of what may be referred to."""
    return reference.name if reference else None
