"""Files of any trainer to a Dump: `read_dump` in reading.py, the forms that it knows in `FORMS` of forms.py.

Data runs one way: files are found (files.py) and opened as rows (rows.py), the form of a file is recognised by its
columns (forms.py) and says which cell has which role (a module for each trainer), and cells become a response
(responses.py), checked and with what the policy did not write cut away (masks.py). Nothing is ever unpickled.
"""
