"""What a run is made of: the recipe, its checks, its files, and what they need to know of the machine."""
