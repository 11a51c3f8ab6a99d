"""Reading labelled images, splitting them, changing them."""
