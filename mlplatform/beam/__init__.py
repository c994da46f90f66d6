"""What our Beam pipelines share: record accounting, progress, TFRecord shards."""
