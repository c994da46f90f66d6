"""Push a validated model to where servers read it, and see it serving."""
