"""Search for a better recipe: Optuna proposes, the pipeline of every run trains, out-of-fold answers decide."""
