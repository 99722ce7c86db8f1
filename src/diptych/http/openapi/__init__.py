"""OpenAPI 3.1 from endpoints: their messages, documents and errors; and the pages that show it."""
