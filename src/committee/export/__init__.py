"""What leaves the house: a run folder -> an ONNX file with its proof, other formats, the page as a file, a card."""
