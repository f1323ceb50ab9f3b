"""Generated scenes with known truth, and the training of the models that learn from them."""
