"""Reasons for the end of a session, as clients, logs and metrics show them."""

DONE = "done"
DISCONNECTED = "disconnected"
STOPPING = "the server is stopping"
WORKER_LOST = "the worker process ended"
INTERNAL_ERROR = "internal error"
BAD_MESSAGE = "bad message"
NO_MESSAGE = "no message"
SLOW_READER = "slow reader"
TOO_MANY_COMMANDS = "too many commands"
UTTERANCE_TOO_LONG = "utterance too long"
SESSION_TOO_LONG = "session too long"

REASONS = frozenset(
    (
        DONE, DISCONNECTED, STOPPING, WORKER_LOST, INTERNAL_ERROR, BAD_MESSAGE, NO_MESSAGE, SLOW_READER,
        TOO_MANY_COMMANDS, UTTERANCE_TOO_LONG, SESSION_TOO_LONG,
    )
)  # fmt: skip
"""All of them; other sessions end with an error of their own."""
