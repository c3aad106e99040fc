"""Whole batches of training data, made on the device that trains: their volumes, degradations, lesions and physics."""
