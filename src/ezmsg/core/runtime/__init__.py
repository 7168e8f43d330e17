"""What a run does with components: prepare their tree, place them in processes, and run them there."""
