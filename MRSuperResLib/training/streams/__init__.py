"""Training data: crops, their degradation, synthesis from label maps, and the streams that methods draw from."""
