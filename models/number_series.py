"""Gapless document numbers: one counter per account, document type and, where they reset, year."""

from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Select, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from billing.number_formats import DocumentType
from models.base import Base, one_of


class NumberSeries(Base):
    """The next sequence number of one series. Its row lock is what keeps numbers gapless.

    ``year`` is 0 where numbers never start again; the series began with ``first_number``.
    """

    __tablename__ = "number_series"
    __table_args__ = (
        CheckConstraint(one_of("document", DocumentType), name="document"),
        CheckConstraint("first_number > 0 AND next_number >= first_number", name="next_number"),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    document: Mapped[str] = mapped_column(primary_key=True)
    year: Mapped[int] = mapped_column(primary_key=True, server_default="0")
    first_number: Mapped[int] = mapped_column(BigInteger, server_default="1")
    next_number: Mapped[int] = mapped_column(BigInteger)

    @property
    def is_used(self) -> bool:
        """Whether it has given a number yet: from then on it has no gaps."""
        return self.next_number > self.first_number


def take_numbers(
    session: Session, account_id: UUID, document: DocumentType, year: int, count: int
) -> int:
    """Reserve ``count`` consecutive numbers and return the first.

    The series stays locked until the caller's transaction ends: a rollback gives the numbers
    back, which a sequence would not. Call it as late as the work allows.
    """
    statement = (
        insert(NumberSeries)
        .values(account_id=account_id, document=document, year=year, next_number=1 + count)
        .on_conflict_do_update(
            index_elements=["account_id", "document", "year"],
            set_={"next_number": NumberSeries.next_number + count},
        )
        .returning(NumberSeries.next_number)
    )
    return session.execute(statement).scalar_one() - count


def series_for_update(account_id: UUID, document: DocumentType) -> Select[NumberSeries]:
    """The series of one document type that there are, by year, locked."""
    return (
        select(NumberSeries)
        .where(NumberSeries.account_id == account_id, NumberSeries.document == document)
        .order_by(NumberSeries.year)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
