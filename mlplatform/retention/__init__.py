"""What of a root is kept, and what is removed, by one policy: nothing kept loses what it depends on."""
