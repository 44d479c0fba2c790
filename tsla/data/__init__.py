"""Everything that becomes arrays: data sets, batches, augmentation."""
