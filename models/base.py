"""Declarative base and the column types every table shares."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, MetaData, Numeric, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

# uuid7() is the schema's own function (PostgreSQL 15 to 17 have none), so rows written
# set-wise by INSERT ... SELECT get time-ordered ids as well.
PrimaryKey = Annotated[UUID, mapped_column(primary_key=True, server_default=func.uuid7())]
MinorUnits = Annotated[int, mapped_column(BigInteger)]
Quantity = Annotated[Decimal, mapped_column(Numeric(18, 6))]
UnitPrice = Annotated[Decimal, mapped_column(Numeric(22, 8))]
Percent = Annotated[Decimal, mapped_column(Numeric(7, 4))]
CreatedAt = Annotated[datetime, mapped_column(server_default=func.now())]
JsonObject = Annotated[dict[str, Any], mapped_column(JSONB, server_default=text("'{}'"))]
JsonList = Annotated[list[Any], mapped_column(JSONB, server_default=text("'[]'"))]


class Base(DeclarativeBase):
    """Names every constraint, so migrations can refer to them."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map = {
        str: Text,
        datetime: DateTime(timezone=True),
        UUID: Uuid,
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
    }


def one_of(column: str, values: type[StrEnum]) -> str:
    """The SQL of a CHECK that keeps ``column`` within an enum's values."""
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


def is_currency(column: str = "currency") -> str:
    """The SQL of a CHECK that keeps ``column`` a lower-case ISO 4217 code by shape."""
    return f"{column} ~ '^[a-z]{{3}}$'"
