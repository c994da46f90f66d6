"""What the team adds to mlplatform."""
