"""Whether this process lives, and whether it can serve."""

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.problems import documented, problem_response
from api.transactions import EngineOf
from models.schema import is_current

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """All is well; anything else is a problem document."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: str = "ok"


@router.head("/livez", include_in_schema=False)
@router.get("/livez", summary="Does the process live?")
def livez() -> Health:
    """Answers as long as the process runs, whatever else is away."""
    return Health()


@router.head("/readyz", include_in_schema=False, response_model=Health)
@router.get(
    "/readyz",
    summary="Can the process serve?",
    response_model=Health,
    responses=documented("not_ready"),
)
def readyz(engine: EngineOf) -> Health | Response:
    """Only when the database answers and its schema is the one this release was written for."""
    missing = what_is_missing(engine)
    if missing is None:
        return Health()
    return problem_response("not_ready", missing)


def what_is_missing(engine: Engine) -> str | None:
    """What keeps this process from serving, and what to do; ``None`` when nothing does."""
    try:
        with engine.connect() as connection:
            current = is_current(connection)
    except SQLAlchemyError:
        return "The database does not answer: check DATABASE_URL, and that the server runs."
    if not current:
        return "The database has another schema than this release: run `duecourse migrate`."
    return None
