"""The reading room: what people see of the stone, as pages and as the data that pages are made from."""
