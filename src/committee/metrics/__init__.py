"""From probabilities and labels to figures with intervals."""
