"""The web app: images and questions in, text and pictures out, in the browser.

    routing.py     which task an instruction asks for
    sessions.py    what each open page has: its image, its conversation, its own folder
    opening.py     uploads -> scans; which windows, planes and slices one has to choose from
    decoding.py    what is set about decoding
    running.py     a turn, step by step: text as it comes, rows of a picture, the result
    pictures.py    pictures as the page and its downloads have them
    markup.py      the pieces of HTML that the page is filled with; examples.py: what newcomers can try
    report.py      a sheet to be printed
    settings.py    what the app is told when it starts; guard.py: what every request passes

These know gradio:

    page.py           what stands where
    image_events.py   what happens to the image
    talk_events.py    what happens in the conversation and the comparison
    endpoints.py      the same for programs (gradio_client)
    look.py           colours and type; static/ has the style, and what the page does by itself
    server.py         starting and stopping it
"""
