import pytest


@pytest.fixture
def short_classifier(monkeypatch):
    """The classifier of posteriors ends early; `test_simulated.py` tries that of the benchmark."""
    from sklearn import neural_network

    plain = neural_network.MLPClassifier
    monkeypatch.setattr(
        neural_network, "MLPClassifier", lambda *sizes, **settings: plain(*sizes, **{**settings, "max_iter": 30})
    )
