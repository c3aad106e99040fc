"""Training data: crops, how they are made coarse, synthesis from label maps, and the streams that methods draw from."""
