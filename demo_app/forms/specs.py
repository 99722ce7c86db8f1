"""The fields of each form."""

from __future__ import annotations

from demo_app.forms.form import FieldSpec

# All inputs are text fields: from a date or number field a browser drops a text that it can't read ("31 February")
# and sends nothing, as for an empty field, and the text could not be shown again. There is no maxlength, since
# browsers count emoji as two.
BOOK = (
    FieldSpec(
        "title", "Title", "Up to 200 characters. No two books have the same.", required=True, prose=True
    ),
    FieldSpec("author", "Author", required=True, prose=True),
    FieldSpec(
        "published_date", "First published", "Year, month and day, such as 1865-11-26.", inputmode="numeric"
    ),
    FieldSpec("isbn", "ISBN", "13 digits, or 10 of which the last may be X; hyphens may stay."),
    FieldSpec(
        "stock_quantity", "Copies in stock", "A whole number.", required=True, inputmode="numeric", start="0"
    ),
)
REVIEW = (
    FieldSpec("stars", "Stars", required=True),
    FieldSpec("text", "Review", "Up to 2,000 characters.", required=True, prose=True),
)
TAG = (
    FieldSpec(
        "name",
        "Name",
        "Up to 200 characters. No two tags have the same. All books get the new name.",
        required=True,
        prose=True,
    ),
)
