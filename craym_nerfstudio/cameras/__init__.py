"""What happens to camera poses during and after training: the optimizer nerfstudio asks for, and its motions."""
