"""What every typed value of this program has in common: it is frozen, and it knows all of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, JsonValue, model_validator


class Record(BaseModel):
    """A frozen value that refuses unknown fields; what is stored is its JSON form.

    `names_of_0_4` maps the names that fields had in files of version 0.4 to today's, so that old folders stay readable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names_of_0_4: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _current_names(cls, content: JsonValue) -> JsonValue:
        if cls.names_of_0_4 and isinstance(content, dict):
            return {cls.names_of_0_4.get(name, name): value for name, value in content.items()}
        return content
