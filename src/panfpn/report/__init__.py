"""Scores for people: the page of a run, and tables on the terminal."""
