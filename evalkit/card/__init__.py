"""A model card's published figures, and what a measured figure says of them."""
