"""Stories: from what a person asks for to a picture, in a straight line."""
