"""Studies: recipes beside each other, repeated and compared; grids; pseudo-labels."""
