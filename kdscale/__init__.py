"""Search the loss weights of knowledge distillation, and know whether the difference is real."""

__version__ = "0.1.0"
