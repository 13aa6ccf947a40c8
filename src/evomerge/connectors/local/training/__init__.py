"""Training of seeds and ELMs through torch. Importing this package alone does not import torch."""
