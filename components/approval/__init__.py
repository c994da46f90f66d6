"""Ask a person whether a model may be pushed, and wait for the answer."""
