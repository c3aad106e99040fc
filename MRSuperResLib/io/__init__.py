"""Files in and out: volumes of every format this reads, checked against what the file itself says."""
