"""A callback of LiteLLM's proxy that keeps what it has seen for good, as people write them: the leak that is planted."""

from __future__ import annotations

from typing import Any

from litellm.integrations.custom_logger import CustomLogger


class Keeping(CustomLogger):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, str]] = []

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self.seen.append((start_time, str(response_obj) * 20))


handler = Keeping()
