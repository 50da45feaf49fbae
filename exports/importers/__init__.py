"""Readers of what other tools wrote: each yields items that name an image and say words, a caption, a rating of it."""
