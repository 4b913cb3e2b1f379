"""A small story world: characters, places and objects whose state the plots change, told by a grammar."""
