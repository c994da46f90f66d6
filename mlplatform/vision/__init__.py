"""Image models: backbones and their pretrained weights, decoding, cached features, export signatures."""
