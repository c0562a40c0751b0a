"""The three training stages, as one command each: `healthgpt train --config FILE`."""
