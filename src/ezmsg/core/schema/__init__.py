"""What settings classes look like from outside, whatever library they are made with."""
