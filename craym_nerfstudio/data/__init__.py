"""From files to what training is fed with: readers, frames, the dataparser, the data manager and its key rays."""
