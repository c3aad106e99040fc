"""Losses for training, one family a file; they know tensors and nothing of files, volumes or recipes."""
