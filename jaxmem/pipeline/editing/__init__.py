"""What a user changes of the membranes that were found: the file that says so, and how it is done."""
