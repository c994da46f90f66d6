"""The columns of the taxi trips, and how each enters the model."""

LABEL = "tips"
FARE = "fare"
LABEL_IN_MODEL = "is_big_tip"

NUMBERS = ("trip_miles", "fare", "trip_seconds")
PLACES = ("pickup_latitude", "pickup_longitude", "dropoff_latitude", "dropoff_longitude")
WORDS = ("payment_type", "company")
# Column and the number of its values.
CATEGORIES = {"trip_start_hour": 24, "trip_start_day": 8, "trip_start_month": 13}

PLACE_BUCKETS = 10
WORDS_KEPT = 1000
WORDS_HASHED = 10  # buckets for words that the vocabulary does not hold
