"""The columns of the taxi trips that both models learn from, and how each enters the model."""

NUMBERS = ("trip_miles", "trip_seconds")
PLACES = ("pickup_latitude", "pickup_longitude", "dropoff_latitude", "dropoff_longitude")
WORDS = ("payment_type", "company")
# Column and the number of its values.
CATEGORIES = {"trip_start_hour": 25, "trip_start_day": 8, "trip_start_month": 13}

PLACE_BUCKETS = 10
WORDS_KEPT = 100
WORDS_HASHED = 10  # buckets for words that the vocabulary does not hold

# What each model answers, and the columns that hold the answer: no model is asked with them.
ANSWERS = {"big_tipper": ("tips",), "fare": ("fare", "tips")}


def numbers(label):
    """Return the columns that enter the model of this label as numbers."""
    return (*NUMBERS, "fare") if label == "big_tipper" else NUMBERS


def sizes():
    """Return the columns that enter as one of so many values."""
    found = dict.fromkeys(PLACES, PLACE_BUCKETS)
    found |= dict.fromkeys(WORDS, WORDS_KEPT + WORDS_HASHED)
    return found | CATEGORIES
