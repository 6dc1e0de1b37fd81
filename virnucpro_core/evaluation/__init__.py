"""How good are the calls? Measures on labelled sequences, calibration of scores, and the page that shows both."""
