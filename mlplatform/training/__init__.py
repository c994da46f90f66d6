"""What a training program is written with: fits that resume after a kill, and their history."""
