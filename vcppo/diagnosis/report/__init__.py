"""A report as one HTML file that opens from disk without a network, with a viewer of single responses.

`writing` is the door. Figures and tables are drawn here, so that the page can be read where no script runs; the page's
script has the viewer, the theme and the copying of settings.
"""
