"""ML Metadata: the connection, the order of events, and what a killed run left."""
