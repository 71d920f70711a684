"""Given poses held against their images before training: what is wrong, what it weighs, what to change."""
