"""How compiled loops are loaded and run on all cores, whatever they compute."""
