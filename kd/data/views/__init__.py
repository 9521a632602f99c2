"""What a model sees of images in an epoch."""
