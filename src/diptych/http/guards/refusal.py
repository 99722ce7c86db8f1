"""The answer of a wrapper that refuses a request before the application sees it."""

from __future__ import annotations

from diptych.http.answers import answer_problem, send_answer
from diptych.http.asgi import DATA_HEADERS, Send
from diptych.http.errors import HttpError, problem_for


async def refuse(error: HttpError, send: Send) -> None:
    """Sends problem details, with the security headers of data."""
    await send_answer(send, answer_problem(problem_for(error), DATA_HEADERS))
