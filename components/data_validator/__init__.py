"""The data gate: statistics, schema, anomalies, and a verdict that stops the run."""
