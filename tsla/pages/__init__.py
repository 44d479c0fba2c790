"""What a page is made of, its templates, and the look of its figures.

Blocks of plain text go in, Markdown or HTML comes out. What a page says is not
decided here.
"""
