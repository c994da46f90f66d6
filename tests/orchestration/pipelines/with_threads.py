"""A pipeline whose module starts a thread when it is imported: its process cannot be forked."""

import threading

from by_name import create_pipeline as create_pipeline

threading.Thread(target=threading.Event().wait, daemon=True).start()
