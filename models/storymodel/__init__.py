"""Trains the embedded story model: tokenizer, packed corpus, network, export."""
