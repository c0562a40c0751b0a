"""`healthgpt serve`: OpenAI's API over resident models.

A request passes `gate` (who asks, is there room), is read by `protocol`, `conversation` and `forms`, has its images
read by `image_readers`, waits at a model's `desk`, and is answered by `chat` or `drawings`. `service` holds what
requests share, `server` is the app, `run` runs it.
"""
