"""State-space, attention and expert blocks with carried state: `y, state = block(x, state)`."""

ROTARY_BASE = 10_000.0  # of the frequencies of rotary positions
