"""Networks: from a recipe to a module, and their layer tables."""
