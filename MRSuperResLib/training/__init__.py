"""Training: packed data, synthesis of contrasts, recipes (a TOML file each), methods, and `fit`, one loop for all of them."""
