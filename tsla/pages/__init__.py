"""What a page is made of, its template, and the look of its figures.

Blocks of plain text go in, HTML comes out. What a page says is not
decided here.
"""
