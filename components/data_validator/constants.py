"""Makes a number that never varies comparable with one that does.

TensorFlow Data Validation compares histograms bucket by bucket. The bucket of a constant has no width, so it
never meets a bucket of the other side: 100 photos of 112 px, and then one of 113 px among them, would be as
far apart as can be.
"""

from mlplatform.components.data_validator.baseline import Statistics
from mlplatform.components.data_validator.schema import feature_statistics


def with_wide_constants(statistics: Statistics, other: Statistics) -> Statistics:
    """Return a copy in which each constant lies in the bucket of the other side that holds its value."""
    widened = Statistics()
    widened.CopyFrom(statistics)
    others = feature_statistics(other)
    for name, feature in feature_statistics(widened).items():
        numbers = feature.num_stats
        if name not in others or feature.WhichOneof("stats") != "num_stats" or numbers.min != numbers.max:
            continue
        holding = [
            bucket
            for histogram in others[name].num_stats.histograms
            if histogram.type == histogram.STANDARD
            for bucket in histogram.buckets
            if bucket.low_value <= numbers.min <= bucket.high_value and bucket.low_value < bucket.high_value
        ]
        for histogram in numbers.histograms:
            if holding and histogram.type == histogram.STANDARD:
                total = sum(bucket.sample_count for bucket in histogram.buckets)
                del histogram.buckets[:]
                # The last: where a value is on an edge, the bucket that begins with it counts it.
                histogram.buckets.add(
                    low_value=holding[-1].low_value, high_value=holding[-1].high_value, sample_count=total
                )
    return widened
