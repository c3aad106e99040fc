"""What the MRSuperRes module does for its panel and the console: scene in, worker, scene out."""
