"""Predictions for many records at once: read, ask the model, write, account for every record."""
