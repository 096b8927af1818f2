"""Gapless document numbers: one counter per account and document type."""

from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from billing.numbering import DocumentType
from models.base import Base, one_of


class NumberSeries(Base):
    """The next sequence number of one series. Its row lock is what keeps numbers gapless."""

    __tablename__ = "number_series"
    __table_args__ = (
        CheckConstraint(one_of("document", DocumentType), name="document"),
        CheckConstraint("next_number > 0", name="next_number"),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    document: Mapped[str] = mapped_column(primary_key=True)
    next_number: Mapped[int] = mapped_column(BigInteger)


def take_numbers(session: Session, account_id: UUID, document: DocumentType, count: int) -> int:
    """Reserve ``count`` consecutive numbers and return the first.

    The series stays locked until the caller's transaction ends: a rollback gives the numbers
    back, which a sequence would not. Call it as late as the work allows.
    """
    statement = (
        insert(NumberSeries)
        .values(account_id=account_id, document=document, next_number=1 + count)
        .on_conflict_do_update(
            index_elements=["account_id", "document"],
            set_={"next_number": NumberSeries.next_number + count},
        )
        .returning(NumberSeries.next_number)
    )
    return session.execute(statement).scalar_one() - count
