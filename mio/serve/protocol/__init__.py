"""Bodies of requests, as pydantic models. Unknown fields are refused, and so are values of known ones that would change
the answer and cannot be met; fields that change nothing here are taken and have no effect."""
