"""`cockpit report`: the overview of the marts as one HTML file that opens anywhere, without a network."""
