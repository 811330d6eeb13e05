"""What quantities owe (laws R1, R4, R5, M2). `curve.py` has the one function that all of them are made of, `price.py`
what the rest of the engine asks of a price, `model.py` what a model is. Each model is one file, and stands in
`models.py`."""
