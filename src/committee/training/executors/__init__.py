"""Where jobs run: in this process, in worker processes, or stacked on one accelerator; the results are the same."""
