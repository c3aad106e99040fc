"""Layers that several networks share; none of them is a model by itself."""
