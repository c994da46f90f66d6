"""The processes that nodes run in: started warm, watched, stopped with their children."""
