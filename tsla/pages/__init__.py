"""What a report or a page is made of, and how it is written."""
