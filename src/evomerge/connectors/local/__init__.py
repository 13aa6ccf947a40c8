"""Local models through torch. Importing this package alone does not import torch."""
