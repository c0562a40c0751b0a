"""What people and programs reach over the network: the web app, and an API in the shape of OpenAI's."""
