"""Training: packed data, contrast-agnostic synthesis, recipes (one TOML per published training) and the loop."""
