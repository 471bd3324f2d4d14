"""Neural architecture search under a parameter budget, with honest numbers."""
