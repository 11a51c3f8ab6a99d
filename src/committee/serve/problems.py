"""What a server refuses: a status code, a sentence, and for a busy server when to come again."""

from __future__ import annotations

from http import HTTPStatus


class RefusedError(Exception):
    """A request that gets no answer: why, in a sentence for the client.

    Attributes:
        status: the code of the answer.
        retry_after: seconds after which the same request may succeed; None where it will not.
    """

    def __init__(self, status: HTTPStatus, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.retry_after = status, retry_after


def busy(what: str) -> RefusedError:
    """A refusal of a server that has too much to do, or is loading or ending."""
    return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, f"{what}; ask again in a second", retry_after=1)


def too_large(what: str) -> RefusedError:
    """A refusal of what is over a limit."""
    return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, what)


def unusable(what: str) -> RefusedError:
    """A refusal of what cannot be understood."""
    return RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, what)
