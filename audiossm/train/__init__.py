"""Training: a corpus on the device, batches, augmentation, losses. Needs the ``train`` extra."""
