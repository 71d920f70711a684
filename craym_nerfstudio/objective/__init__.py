"""What training minimises: the losses of the paper as pure functions, and which is on at a step."""
