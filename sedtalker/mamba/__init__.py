"""State-space, attention and expert blocks with carried state: `y, state = block(x, state)`."""
