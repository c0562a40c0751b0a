"""Batch work that cannot be lost: questions in, answers out, interrupted as often as one likes.

`questions.Questions` reads what is asked, `answer_file.AnswerFile` keeps what was answered, `run.run_batch` does what
is missing. Nothing is imported here, as processes that only read images should start in a moment.
"""
