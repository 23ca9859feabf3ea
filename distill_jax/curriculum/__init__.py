"""Which problems a step draws, and what it learns about them."""
