"""autolambda finds the best merge of an Instruct and a Thinking model for a token budget."""

__version__ = "0.1.0"
